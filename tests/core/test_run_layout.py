"""Three-column runs: scores are never read as ranks or vice versa."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankllm_core.errors import DataError
from rankllm_core.trec import (
    format_beside_others,
    holds_ranks,
    iter_run,
    read_run,
    write_tsv,
)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path


AMBIGUOUS = {
    "counted from 0": "Q1\tD1\t0\nQ1\tD2\t1\n",
    "one line removed": "Q1\tD1\t1\nQ1\tD2\t3\n",
    "not sorted": "Q1\tD2\t2\nQ1\tD1\t1\n",
    "written as floats": "Q1\tD1\t1.0\nQ1\tD2\t2.0\n",
    "ties averaged": "Q1\tD1\t1.0\nQ1\tD2\t2.5\nQ1\tD3\t2.5\n",
    "ties counted": "Q1\tD1\t1\nQ1\tD2\t1\nQ1\tD3\t3\n",
    "only one query of many": "Q1\tD1\t1\nQ1\tD2\t2\nQ2\tD3\t1\nQ2\tD4\t3\n",
    "blanks": "Q1 D1 10\nQ1 D2 20\n",
    "a float without decimals": "Q1\tD1\t1.\nQ1\tD2\t2.\n",
    "with exponents": "Q1 D1 1.000000e+00\nQ1 D2 2.000000e+00\n",
    "with signs": "Q1\tD1\t+1\nQ1\tD2\t+2\n",
    "leading zeros": "Q1\tD1\t01\nQ1\tD2\t02\n",
}


@pytest.mark.parametrize("text", AMBIGUOUS.values(), ids=AMBIGUOUS)
@pytest.mark.parametrize("read", [read_run, lambda path: list(iter_run(path)), holds_ranks])
def test_what_may_be_scores_or_ranks_is_refused(tmp_path, text, read):
    """A wrong guess would reverse every list, so the error gives both readings and the options for them."""
    with pytest.raises(DataError, match=r"run:\d: .* may be a score or a rank.*--run-format msmarco"):
        read(write(tmp_path / "run", text))


@pytest.mark.parametrize("name", ["counted from 0", "one line removed", "not sorted", "written as floats"])
def test_a_stated_format_settles_it(tmp_path, name):
    """As ranks, the lowest value comes first; as scores, the highest."""
    path = write(tmp_path / "run", AMBIGUOUS[name])
    as_ranks = sorted(read_run(path, format="msmarco")["Q1"], key=lambda pair: -pair[1])
    as_scores = sorted(read_run(path, format="tsv")["Q1"], key=lambda pair: -pair[1])
    assert [docid for docid, _ in as_ranks] == ["D1", "D2"]
    assert [docid for docid, _ in as_scores] == ["D2", "D1"]


@pytest.mark.parametrize(
    "text",
    [
        "Q1\tD1\t12.5\nQ1\tD2\t7\n",
        "Q1\tD1\t7\nQ1\tD2\t12.25\n",
        "Q1\tD1\t0\nQ1\tD2\t-1\n",
        "Q1\tD1\t1e1\nQ1\tD2\t2\n",
        "Q1\tD1\t5\nQ1\tD2\t5\nQ1\tD3\t2\n",
        "Q1\tD1\t3.0\nQ1\tD2\t2.0\nQ1\tD3\t1.0\n",
        "Q1\tD1\t17\nQ2\tD1\t4\n",
    ],
)
def test_scores_that_cannot_be_ranks_need_no_option(tmp_path, text):
    """Fractions, signs, exponents, ties or floats in a descending list, single-item lists."""
    path = write(tmp_path / "run", text)
    assert not holds_ranks(path)
    assert read_run(path) == read_run(path, format="tsv")


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_run_of_our_own_is_read_back(tmp_path, n):
    """Listwise scores n, n - 1, ..., 1, written as TSV, are read as scores."""
    ranking = [(f"d{rank}", float(n - rank)) for rank in range(n)]
    write_tsv(tmp_path / "own.tsv", [("q", ranking)])
    assert read_run(tmp_path / "own.tsv") == {"q": ranking}


def test_one_format_for_several_runs_leaves_six_columns_alone(tmp_path):
    """The option for the third column does not apply to TREC runs."""
    trec = write(tmp_path / "trec", "q Q0 d 1 2.5 t\n")
    ranks = write(tmp_path / "ranks", "q\td\t1\n")
    assert [format_beside_others(path, "msmarco") for path in (trec, ranks)] == ["trec", "msmarco"]
    assert [format_beside_others(path, "auto") for path in (trec, ranks)] == ["auto", "auto"]


def test_a_top1000_file_is_named_for_what_it_is(tmp_path):
    """MS MARCO's qid, pid, query, passage is not a run."""
    path = write(tmp_path / "top1000.dev", "188714\t1000052\tfoods and supplements\tWatch portion sizes.\n")
    with pytest.raises(DataError, match=r"top1000.dev:1: expected .* \(looks like a top1000 file of MS MARCO"):
        read_run(path)

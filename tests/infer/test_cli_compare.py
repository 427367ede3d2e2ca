"""`rankllm-infer compare` from the command line."""

from __future__ import annotations

import json

import pytest
from shared_files import data

PILOT = "; for a partial run, --run-queries-only averages over the queries of the run"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Judgements and three runs over two queries, with RR (1/2, 1), (1, 1) and (1, missing)."""
    files = {
        "qrels": "q1 0 a 1\nq2 0 a 1\n",
        "base.run": "q1 b 2.5\nq1 a 1\nq2 a 1\n",
        "good.run": "q1 a 1\nq2 a 1\n",
        "short.run": "q1 a 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compare(rankllm, *arguments):
    return rankllm("compare", "--qrels", "qrels", "-m", "RR", *arguments)


def test_a_table_goes_to_standard_output(folder, rankllm):
    """Queries missing from a run are reported on standard error."""
    done = compare(rankllm, "base.run", "good.run", "short.run")
    assert done.code == 0, done.err
    assert [line.split()[:2] for line in done.out.splitlines()[2:]] == [
        ["base.run", "0.7500"],
        ["good.run", "1.0000"],
        ["short.run", "0.5000"],
    ]
    assert done.err == f"short.run: 1 of 2 judged queries missing from the run, counted as 0 ('q2'){PILOT}\n"


def test_the_queries_of_all_runs_can_be_compared_alone(folder, rankllm):
    """Both runs on q1, the only common query; -c would do the opposite."""
    done = compare(rankllm, "base.run", "short.run", "--run-queries-only")
    assert [line.split()[1] for line in done.out.splitlines()[2:]] == ["0.5000", "1.0000"]
    assert done.err == "short.run: 1 of 2 judged queries missing from the run, excluded from the means ('q2')\n"


def test_json_has_the_settings_and_per_query_values(folder, rankllm):
    """One object; a baseline that is not among the runs comes first."""
    options = ["--baseline", "base.run", "--json", "-q", "--seed", "5", "--resamples", "200", "--level", "0.9"]
    record = json.loads(compare(rankllm, "good.run", *options).out)
    assert (record["baseline"], record["resamples"], record["seed"], record["level"]) == ("base.run", 200, 5, 0.9)
    base, good = record["measures"]["RR"]
    assert (base["run"], good["run"]) == ("base.run", "good.run")
    assert good["gains"] == {"q1": 0.5, "q2": 0.0}


def test_gained_and_lost_queries_are_listed(folder, rankllm):
    """--per-query lists them with the values of baseline and run."""
    done = compare(rankllm, "base.run", "good.run", "--per-query")
    assert done.out.splitlines()[-1] == "good.run  gained  q1  0.5000 -> 1.0000"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["base.run"], 2, "give at least two runs"),
        (["base.run", "base.run"], 2, "base.run is given twice"),
        (["base.run", "good.run", "-c", "--run-queries-only"], 2, "-c and --run-queries-only contradict each other"),
        (["base.run", "nowhere.run"], 1, "nowhere.run: no such file"),
        (["base.run", "good.run", "-m", "ndgc@10"], 1, "measure 'ndgc@10': unknown; did you mean 'nDCG@10'?"),
        (["base.run", "other.run"], 1, "other.run: no query of the run is judged"),
    ],
)
def test_errors_are_one_line_without_figures(folder, rankllm, arguments, code, message):
    """With the same messages as `evaluate`."""
    (folder / "other.run").write_text("x a 1\n", encoding="utf-8")
    done = compare(rankllm, *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err


def test_a_real_difference_is_significant_and_a_missing_one_is_not(rankllm):
    """TREC DL 2021: SPLADE++ .685 against BM25 .446, as recorded; BM25 with RM3 does not differ significantly from
    BM25."""
    source = data("trec_dl21")
    runs = [source / "runs" / f"{name}.run.gz" for name in ("BM25", "SPLADE_P_P_ENSEMBLE_DISTIL", "BM25_RM3")]
    done = rankllm("compare", "--qrels", source / "qrels.txt", *runs, "--json")
    bm25, splade, rm3 = json.loads(done.out)["measures"]["nDCG@10"]
    assert (bm25["mean"], splade["mean"]) == (pytest.approx(0.4458, abs=5e-5), pytest.approx(0.685, abs=0.002))
    assert bm25["interval"][0] < 0.4458 < bm25["interval"][1] < splade["interval"][0]
    assert splade["p_holm"] < 0.001
    assert rm3["p_holm"] > 0.5

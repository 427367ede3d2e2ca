"""The results page is made of runs: its figures are those of a hand count, and what is not there is left out."""

from __future__ import annotations

import importlib
import json
import math

import click
import pytest
from shared_files import REPOSITORY

pytest.importorskip("matplotlib")

RUNS = {"first-stage": "d1 d2 d3", "pointwise": "d2 d1 d3"}
"""d2 alone is relevant: nDCG 1 / log2(3) at rank 2, and 1 at rank 1."""
AT_SECOND = 1 / math.log2(3)


@pytest.fixture
def results_page(monkeypatch):
    """The module that writes the page."""
    monkeypatch.syspath_prepend(REPOSITORY / "scripts" / "models")
    return importlib.import_module("results_page")


@pytest.fixture
def folders(tmp_path):
    """Eight queries of one set, two systems, and what they cost."""
    data, work = tmp_path / "data", tmp_path / "work"
    folder = work / "wikiqa"
    (data / "wikiqa").mkdir(parents=True)
    folder.mkdir(parents=True)
    qids = [f"q{number}" for number in range(8)]
    (data / "wikiqa" / "qrels.txt").write_text("".join(f"{qid} 0 d2 1\n" for qid in qids), encoding="utf-8")
    candidates = [{"docid": "d1", "score": 1.0, "doc": {"text": "text"}}]
    requests = [{"query": {"qid": qid, "text": "what"}, "candidates": candidates} for qid in qids]
    (folder / "requests.jsonl").write_text("".join(json.dumps(r) + "\n" for r in requests), encoding="utf-8")
    for system, order in RUNS.items():
        lines = [
            f"{qid} Q0 {docid} {rank} {-rank} {system}\n"
            for qid in qids
            for rank, docid in enumerate(order.split(), start=1)
        ]
        (folder / f"{system}.trec").write_text("".join(lines), encoding="utf-8")
        (folder / f"{system}.cost.json").write_text('{"cpu_s": 4.0}\n', encoding="utf-8")
    usage = {"calls": 3, "prompt_tokens": 700, "completion_tokens": 0}
    (folder / "pointwise.jsonl").write_text(
        "".join(json.dumps({"usage": usage}) + "\n" for _ in qids), encoding="utf-8"
    )
    return data, work


def test_figures_and_costs_are_those_of_the_runs(results_page, folders, tmp_path):
    """Eight queries that all gain the same: nDCG from .6309 to 1, p = 2 / 256 by all sign flips; half a second each."""
    data, work = folders
    page = tmp_path / "docs" / "RESULTS.md"
    page.parent.mkdir()
    results_page.write_page(page, data=data, work=work)
    text = page.read_text(encoding="utf-8")
    assert "| first stage | .6309 |" in text
    assert "| smollm2-pointwise | **1.0000** |" in text
    assert f"{1 - AT_SECOND:+.4f} | 0.0078 | 8/0/0 |" in text
    assert "| WikiQA | smollm2-pointwise | 3.0 | 700 | 0 | 0.50 |" in text
    assert "NFCorpus |" not in text
    assert all((page.parent / name).stat().st_size for name in ("results-gains.png", "results-cost.png"))
    recorded = json.loads((page.parent / "results.json").read_text(encoding="utf-8"))
    assert recorded == {
        "wikiqa": {
            "first-stage": dict.fromkeys([f"q{n}" for n in range(8)], round(AT_SECOND, 4)),
            "pointwise": dict.fromkeys([f"q{n}" for n in range(8)], 1.0),
        }
    }


def test_an_empty_folder_is_said_to_be_empty(results_page, tmp_path):
    """Nothing is written."""
    with pytest.raises(click.ClickException, match="no set has runs of the first stage and of another system"):
        results_page.write_page(tmp_path / "RESULTS.md", data=tmp_path, work=tmp_path)
    assert list(tmp_path.iterdir()) == []

"""The results page: figures match a hand count, measurements are stored, and missing ones are omitted."""

from __future__ import annotations

import json
import math

import click
import pytest
from shared_files import REPOSITORY

pytest.importorskip("matplotlib")

RUNS = {"first-stage": "d1 d2 d3", "pointwise": "d2 d1 d3"}
"""d2 alone is relevant: nDCG 1 / log2(3) at rank 2, and 1 at rank 1."""
AT_SECOND = round(1 / math.log2(3), 4)
QIDS = [f"q{number}" for number in range(8)]


@pytest.fixture
def store(model_script, tmp_path):
    """Eight queries of one set under two systems, four seconds each."""
    (tmp_path / "qrels.txt").write_text("".join(f"{qid} 0 d2 1\n" for qid in QIDS), encoding="utf-8")
    candidates = [{"docid": "d1", "score": 1.0, "doc": {"text": "text"}}]
    requests = [{"query": {"qid": qid, "text": "what"}, "candidates": candidates} for qid in QIDS]
    (tmp_path / "requests.jsonl").write_text("".join(json.dumps(r) + "\n" for r in requests), encoding="utf-8")
    usage = {"calls": 3, "prompt_tokens": 700, "completion_tokens": 0}
    (tmp_path / "pointwise.jsonl").write_text((json.dumps({"usage": usage}) + "\n") * 8, encoding="utf-8")
    measured = {}
    for system, order in RUNS.items():
        lines = [f"{qid} Q0 {docid} {n} {-n} x\n" for qid in QIDS for n, docid in enumerate(order.split(), start=1)]
        (tmp_path / f"{system}.trec").write_text("".join(lines), encoding="utf-8")
        measured[system] = model_script("results_store").measure(
            tmp_path,
            system,
            qrels=tmp_path / "qrels.txt",
            relevance_level=1,
            made_of={"--identifier-prior": [0.5], "--fuse-weight": 0.5} if system == "pointwise" else {},
            cpu_s=4.0,
            scale=0.25 if system == "pointwise" else 1.0,
        )
    return {"wikiqa": measured}


def test_what_is_measured_is_that_of_the_run(store):
    """nDCG from .6309 to 1 for eight identical queries, hence no interval; half a second each, scaled or not."""
    first, pointwise = store["wikiqa"]["first-stage"], store["wikiqa"]["pointwise"]
    assert (first.per_query, pointwise.per_query) == (dict.fromkeys(QIDS, AT_SECOND), dict.fromkeys(QIDS, 1.0))
    assert (first.figures["nDCG@10"].mean, first.figures["nDCG@10"].interval) == (AT_SECOND, (AT_SECOND, AT_SECOND))
    assert (first.figures["MRR@10"].mean, first.figures["Recall@10"].mean) == (0.5, 1.0)
    assert (first.cost.cpu_s, first.cost.calls) == (0.5, 0.0)
    assert (pointwise.cost.cpu_s, pointwise.cost.calls, pointwise.cost.prompt_tokens) == (0.125, 3.0, 700.0)


def test_what_is_kept_comes_back(model_script, store, tmp_path):
    """The file stores everything; without a file, there are no measurements."""
    kept = model_script("results_store")
    assert kept.read_store(tmp_path / "results.json") == {}
    kept.write_store(tmp_path / "results.json", store)
    assert kept.read_store(tmp_path / "results.json") == store


def test_the_page_tells_what_is_kept(model_script, store, tmp_path):
    """Eight queries with the same gain: p = 2 / 256 by all sign flips."""
    page = tmp_path / "docs" / "RESULTS.md"
    page.parent.mkdir()
    model_script("results_page").write_page(page, store)
    text = page.read_text(encoding="utf-8")
    assert "| first stage | .6309 |" in text
    assert "| smollm2-pointwise | **1.0000** |" in text
    assert f"{1 - AT_SECOND:+.4f} | 0.0078 | 8/0/0 |" in text
    assert "| WikiQA | smollm2-pointwise | 3.0 | 700 | 0 | ~0.12 |" in text
    own = "smollm2-pointwise: `--identifier-prior trec_dl_prior.yaml`, `--fuse-weight 0.5`."
    assert f"Settings for this set, chosen on TREC DL 2020: {own}" in text
    assert "NFCorpus |" not in text
    assert all((page.parent / name).stat().st_size for name in ("results-gains.png", "results-cost.png"))


def test_without_figures_there_is_no_page(model_script, tmp_path):
    """Nothing is written."""
    with pytest.raises(click.ClickException, match="has metrics for both the first stage and another system"):
        model_script("results_page").write_page(tmp_path / "RESULTS.md", {})
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_known_by_its_adapter_and_settings(model_script):
    """A changed weight or prior makes a different run; the first stage stays the same."""
    sets = {test_set.name: test_set for test_set in model_script("result_sets").SETS}
    systems = {system.name: system for system in model_script("result_sets").SYSTEMS}
    identity = model_script("results").identity
    wikiqa = {"run": "runs/bm25.run.gz", "depth": 20, "queries": 100}
    assert identity(systems["first-stage"], sets["wikiqa"]) == wikiqa
    alone = identity(systems["first"], sets["wikiqa"])
    assert alone == wikiqa | {"options": "--model-path smollm2-first", "adapter": alone["adapter"]}
    assert identity(systems["pointwise"], sets["wikiqa"])["adapter"] != alone["adapter"]
    assert identity(systems["generation"], sets["wikiqa"])["options"] == "--model-path smollm2-first --no-use-logits"
    assert identity(systems["first"], sets["dl21-splade"])["--fuse-weight"] == 0.4
    assert len(identity(systems["first"], sets["dl21-bm25"])["--identifier-prior"]) == 10
    generation = identity(systems["generation"], sets["dl21-bm25"])
    assert ("--identifier-prior" in generation, generation["--num-passes"]) == (False, 2)


def test_what_is_kept_is_of_the_systems_as_they_are(model_script):
    """Every figure on the page belongs to an adapter, weight and set that the scripts use."""
    sets = {test_set.name: test_set for test_set in model_script("result_sets").SETS}
    systems = {system.name: system for system in model_script("result_sets").SYSTEMS}
    for name, measured in model_script("results_store").read_store(REPOSITORY / "docs" / "results.json").items():
        for system, kept in measured.items():
            assert kept.made_of == model_script("results").identity(systems[system], sets[name]), (name, system)


@pytest.mark.parametrize(
    "option",
    [["--again"], ["--set", "wikiqa"], ["--system", "minilm"], ["--work", "there"], ["--scale-seconds", "2"]],
)
def test_the_page_alone_takes_no_option_of_a_run(model_script, tmp_path, option):
    """Options without effect are rejected, and nothing is written."""
    page = tmp_path / "RESULTS.md"
    with pytest.raises(click.UsageError, match="--no-run writes the page of what is kept: it takes --page alone"):
        model_script("results").main(["--no-run", "--page", str(page), *option], standalone_mode=False)
    assert not page.exists()


def test_what_was_measured_is_not_measured_again(model_script, store, tmp_path, monkeypatch):
    """Unless requested, or the system has changed."""
    results, kept = model_script("results"), tmp_path / "results.json"
    (test_set,) = (s for s in model_script("result_sets").SETS if s.name == "wikiqa")
    (system,) = (s for s in model_script("result_sets").SYSTEMS if s.name == "first-stage")
    runs, now, told = [], {}, {}
    monkeypatch.setattr(results, "run_system", lambda *given: runs.append(given) or 1.0)
    monkeypatch.setattr(results, "measure", lambda *given, **more: told.update(more) or store["wikiqa"]["first-stage"])
    monkeypatch.setattr(results, "identity", lambda *given: dict(now))
    for changes, is_again, n_runs in [({}, False, 1), ({}, False, 1), ({}, True, 2), ({"depth": 3}, False, 3)]:
        now |= changes
        results.keep(kept, test_set, system, tmp_path, tmp_path, scale=0.5, is_again=is_again)
        assert len(runs) == n_runs
    assert (told["cpu_s"], told["scale"]) == (1.0, 0.5)


def test_the_page_in_the_repository_is_the_one_that_is_kept(model_script, tmp_path):
    """docs/RESULTS.md is generated from docs/results.json."""
    docs = REPOSITORY / "docs"
    model_script("results_page").write_page(
        tmp_path / "RESULTS.md", model_script("results_store").read_store(docs / "results.json")
    )
    made, shown = ((folder / "RESULTS.md").read_text(encoding="utf-8") for folder in (tmp_path, docs))
    assert made == shown

"""The numbers are trec_eval's: recorded values of trec_eval 9.0.8 and pytrec_eval on real runs."""

from __future__ import annotations

import gzip
import json

import pytest
from shared_files import data, golden

from rankllm_core.trec import read_qrels, read_run
from rankllm_infer.evaluation.evaluate import evaluate

# Recorded name -> the name we are asked for; both spellings take part.
MEASURES = {
    "ndcg_cut_10": "nDCG@10",
    "ndcg_cut_20": "ndcg_cut.20",
    "map": "AP",
    "recip_rank": "RR",
    "recall_100": "Recall@100",
    "P_10": "P_10",
    "mrr_10": "MRR@10",
}
VARIANTS = (
    *("dl21.BM25", "dl21.SPLADE", "nfcorpus.bm25", "nfcorpus.dev.bm25", "dl20.OPEN_AI_ADA2", "dl20.rankvicuna.BM25"),
    *("dl21.BM25.missing-queries", "dl21.SPLADE.many-ties", "dl21.BM25.close-scores"),
    "dl20.OPEN_AI_ADA2.shuffled-lines",
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Variant -> (recorded values, qrels, run), read from files by our readers."""
    with gzip.open(golden("trec_eval.json.gz"), "rt", encoding="utf-8") as stream:
        variants = json.load(stream)
    folder = tmp_path_factory.mktemp("trec_eval")
    loaded = {}
    for variant in variants:
        for part in ("run", "qrels"):
            (folder / f"{variant['name']}.{part}").write_text(variant[part], encoding="utf-8")
        qrels = read_qrels(folder / f"{variant['name']}.qrels")
        loaded[variant["name"]] = (variant, qrels, read_run(folder / f"{variant['name']}.run"))
    return loaded


def test_every_recorded_variant_is_compared(recorded):
    """A new variant in the recording must be added to the list here."""
    assert set(recorded) == set(VARIANTS)


@pytest.mark.parametrize("name", VARIANTS)
def test_values_and_both_means_are_those_of_trec_eval(recorded, name):
    """Per query, over the queries of the run, and over all judged queries (-c), at every recorded level (-l)."""
    variant, qrels, run = recorded[name]
    for level, expected in variant["levels"].items():
        complete = evaluate(qrels, run, list(MEASURES.values()), relevance_level=int(level))
        of_run = evaluate(qrels, run, list(MEASURES.values()), relevance_level=int(level), run_queries_only=True)
        assert complete.n_queries == expected["n_qrels_queries"]
        assert of_run.n_queries == len(expected["per_query"])
        for key, measure in MEASURES.items():
            values = {qid: values[key] for qid, values in expected["per_query"].items()}
            assert of_run.per_query[measure] == pytest.approx(values, abs=1e-9)
            assert {qid: complete.per_query[measure][qid] for qid in values} == pytest.approx(values, abs=1e-9)
            assert complete.means[measure] == pytest.approx(expected["mean_complete"][key], abs=1e-9)
            assert of_run.means[measure] == pytest.approx(expected["mean_over_run_queries"][key], abs=1e-9)


def test_missing_and_unjudged_queries_are_named(recorded):
    """Seven queries were taken out of that run and one without judgements was added."""
    _, qrels, run = recorded["dl21.BM25.missing-queries"]
    evaluation = evaluate(qrels, run, ["nDCG@10"])
    assert len(evaluation.missing_qids) == 7
    assert len(evaluation.unjudged_qids) == 1


RUNS = (
    "anserini.cacm-bm25.txt",
    "rank_llm.BM25.dl19.trec.txt",
    "rank_llm.BM25.dl20.trec.txt",
    "rank_llm.OPEN_AI_ADA2.dl19.trec.txt",
    "rank_llm.OPEN_AI_ADA2.dl20.trec.txt",
    "rank_llm.REP_LLAMA.dl19.trec.txt",
    "rank_llm.SPLADE_P_P_ENSEMBLE_DISTIL.dl19.trec.txt",
    "rank_llm.SPLADE_P_P_ENSEMBLE_DISTIL.dl20.trec.txt",
    "rank_llm.rerank.gpt-3.5-turbo.BM25.dl19.txt",
    "rank_llm.rerank.gpt-3.5-turbo.BM25.dl20.txt",
    "rank_llm.rerank.rankvicuna.BM25.dl19.txt",
    "rank_llm.rerank.rankvicuna.BM25.dl20.txt",
    "rank_llm.rerank.rankvicuna.SPLADE.dl19.txt",
    "rank_llm.rerank.vicuna-7b-v1.5.BM25.dl19.txt",
)


def _packed_or_plain(folder, name):
    path = data("trec_io") / folder / f"{name}.gz"
    return path if path.exists() else data(f"trec_io/{folder}/{name}")


def test_every_recorded_run_is_compared():
    """The recording and the list here name the same runs."""
    assert set(json.loads(data("trec_io/expected_trec_eval.json").read_text())) == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_means_of_real_runs_are_those_recorded(name):
    """Runs of rank_llm and Anserini; `_l2` is relevance level 2. Recorded with six decimals over the run's queries."""
    expected = json.loads(data("trec_io/expected_trec_eval.json").read_text())[name]
    qrels = read_qrels(_packed_or_plain("qrels", expected.pop("qrels")))
    run = read_run(_packed_or_plain("runs", name))
    assert sum(map(len, run.values())) == expected.pop("lines")
    tied = sum(len(candidates) - len({score for _, score in candidates}) for candidates in run.values())
    assert tied == expected.pop("score_ties")
    n_queries = expected.pop("num_q")
    for key, value in expected.items():
        level = 2 if key.endswith("_l2") else 1
        evaluation = evaluate(qrels, run, [key.removesuffix("_l2")], relevance_level=level, run_queries_only=True)
        assert evaluation.n_queries == n_queries
        assert evaluation.means[key.removesuffix("_l2")] == pytest.approx(value, abs=1e-6)

"""What `rerank` writes and `train label` reads: the tail that no model saw is no lesson."""

from __future__ import annotations

from itertools import pairwise

import pytest
from collections_on_disk import Collection
from ranking_fakes import answer_by, make_method, make_request, noisy, number, rerank

from rankllm_core.data.records import result_to_dict
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_train.data.rankings import ranking_of
from rankllm_train.preparation.label import RecordRule, label_results
from rankllm_train.preparation.windows import WindowRule, record_writer


def learnt(files, results):
    """Every order in the records of these results, best first."""
    rule = RecordRule(
        writer=record_writer(None, None, max_passage_words=300, max_size=20),
        windows=WindowRule(per_query=20, sample="uniform", require_relevant=False),
    )
    path = files.jsonl([result_to_dict(result) for result in results], "results.jsonl")
    label_results(path, rule, output=files.path("out.jsonl"), worst_status="fallback")
    return [
        [record["docids"][int(name) - 1] for name in ranking_of(record["conversations"][-1]["value"])]
        for record in files.read("out.jsonl")
    ]


@pytest.mark.parametrize("options", [{}, {"strategy": "tournament", "rank_top_k": 3}, {"num_passes": 2}])
def test_only_the_reranked_head_is_learnt(tmp_path, options):
    """12 candidates, 4 of them reranked in windows of 8, by a model to which higher numbers are better."""
    backwards = answer_by(lambda text: -number(text))
    plan = make_method(size=8, stride=4, top_k_candidates=4, **options)
    results = rerank(ScriptedEngine(backwards), [make_request(f"q{i}", 12) for i in range(5)], plan)
    orders = learnt(Collection(tmp_path), results)
    assert {docid for order in orders for docid in order} == {"d0", "d1", "d2", "d3"}
    assert all(number(better) > number(worse) for order in orders for better, worse in pairwise(order))


def test_of_a_model_that_is_often_wrong_only_what_it_named_is_learnt(tmp_path):
    """One window: half answers, refusals and whole rankings; no pair of passages that no answer has named."""
    requests = [make_request(f"q{i}", 8) for i in range(40)]
    engine = ScriptedEngine(noisy)
    results = rerank(engine, requests, make_method(with_trace=True))
    assert {result.n_ranked for result in results} == {0, 4, 8}
    orders = learnt(Collection(tmp_path), results)
    assert max(map(len, orders)) == 8
    for result in results:
        named = result.trace[0].response.count("[")
        assert result.n_ranked == named

"""Evaluation: hand-computed values, the two means, and measure names."""

from __future__ import annotations

import json
import math

import pytest

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_infer.evaluation.evaluate import RunningEvaluation, evaluate, evaluation_lines, evaluation_to_dict
from rankllm_infer.evaluation.measures import parse_measures

QRELS = {"q1": {"a": 2, "b": 0, "c": 1}, "q2": {"a": 1}, "q3": {"z": 1}}
# q1: b (0), a (2), x (unjudged), c (1).  q2: y, a.  q3 is missing, q9 has no judgements.
RUN = {
    "q1": [("c", 1.0), ("a", 3.0), ("b", 4.0), ("x", 2.0)],
    "q2": [("y", 2.0), ("a", 1.0)],
    "q9": [("a", 1.0)],
}


def only(measure, *, qrels=QRELS, run=RUN, **options):
    return evaluate(qrels, run, [measure], **options).per_query[measure]


@pytest.mark.parametrize(
    ("measure", "q1", "q2"),
    [
        ("RR", 1 / 2, 1 / 2),
        ("MRR@2", 1 / 2, 1 / 2),
        ("RR@1", 0.0, 0.0),
        ("RR(rel=2)", 1 / 2, 0.0),
        ("P@2", 1 / 2, 1 / 2),
        ("P@4", 2 / 4, 1 / 4),
        ("P(rel=2)@4", 1 / 4, 0.0),
        ("Recall@2", 1 / 2, 1.0),
        ("R@4", 1.0, 1.0),
        ("AP", (1 / 2 + 2 / 4) / 2, 1 / 2),
        ("AP(rel=2)", 1 / 2, 0.0),
        ("AP@2", (1 / 2) / 2, 1 / 2),
        ("Success@1", 0.0, 0.0),
        ("Success@2", 1.0, 1.0),
        # gain = grade, discount = log2(rank + 1)
        ("nDCG@2", (2 / math.log2(3)) / (2 + 1 / math.log2(3)), 1 / math.log2(3)),
        ("nDCG", (2 / math.log2(3) + 1 / math.log2(5)) / (2 + 1 / math.log2(3)), 1 / math.log2(3)),
    ],
)
def test_measures_have_their_textbook_values(measure, q1, q2):
    """Computed by hand from the definitions."""
    values = only(measure)
    assert values == pytest.approx({"q1": q1, "q2": q2, "q3": 0.0}, abs=1e-12)


def test_a_missing_query_counts_zero_and_is_named():
    """trec_eval -c: the mean is taken over all judged queries."""
    evaluation = evaluate(QRELS, RUN, ["RR"])
    assert evaluation.means["RR"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert evaluation.n_queries == 3
    assert evaluation.missing_qids == ("q3",)
    assert evaluation.unjudged_qids == ("q9",)


def test_the_originals_way_leaves_missing_queries_out():
    """With run_queries_only the mean is taken over the judged queries in the run."""
    evaluation = evaluate(QRELS, RUN, ["RR"], run_queries_only=True)
    assert evaluation.means["RR"] == pytest.approx(1 / 2)
    assert evaluation.n_queries == 2
    assert evaluation.missing_qids == ("q3",)
    assert list(evaluation.per_query["RR"]) == ["q1", "q2"]


def test_a_query_without_candidates_is_missing():
    """An empty list cannot be represented in a run file."""
    evaluation = evaluate(QRELS, {**RUN, "q3": []}, ["RR"], run_queries_only=True)
    assert evaluation.missing_qids == ("q3",)
    assert evaluation.n_queries == 2


def test_ties_in_single_precision_go_to_the_greater_docid():
    """1.00000001 exceeds 1 only in double precision, so docid b comes first, as in trec_eval."""
    run = {"q": [("a", 1.00000001), ("b", 1.0)]}
    assert only("RR", qrels={"q": {"b": 1}}, run=run) == {"q": 1.0}
    assert only("RR@1", qrels={"q": {"a": 1}}, run=run) == {"q": 0.0}


def test_reciprocal_rank_is_cut_in_trec_order():
    """MRR@3 with a tie at the cutoff: of two equal scores the greater docid has rank 3, the other rank 4."""
    run = {"q": [("m", 9.0), ("n", 8.0), ("a", 1.0), ("b", 1.0)]}
    assert only("MRR@3", qrels={"q": {"b": 1}}, run=run) == {"q": pytest.approx(1 / 3)}
    assert only("MRR@3", qrels={"q": {"a": 1}}, run=run) == {"q": 0.0}


def test_reciprocal_rank_is_exact_at_every_cut():
    """Rank k is within cutoff k and outside cutoff k - 1, for every k up to 1000."""
    run = {"q": [(f"d{rank}", -float(rank)) for rank in range(1, 1001)]}
    for rank in (2, 3, 7, 10, 49, 98, 161, 999, 1000):
        values = evaluate({"q": {f"d{rank}": 1}}, run, [f"RR@{rank}", f"RR@{rank - 1}"]).means
        assert values == {f"RR@{rank}": pytest.approx(1 / rank), f"RR@{rank - 1}": 0.0}


def test_the_relevance_level_is_the_default_of_measures_that_name_none():
    """trec_eval -l 2; nDCG uses the grades and is unaffected."""
    values = evaluate(QRELS, RUN, ["P@4", "P(rel=1)@4", "nDCG@2"], relevance_level=2).per_query
    assert values["P@4"]["q1"] == 1 / 4
    assert values["P(rel=1)@4"]["q1"] == 2 / 4
    assert values["nDCG@2"] == only("nDCG@2")


def test_only_negative_grades_are_zero_and_no_crash():
    """Such a query makes trec_eval's code write out of bounds, so it must not be passed on."""
    qrels = {"q1": {"a": -2, "b": -5}, "q2": {"a": 1}}
    run = {"q1": [("a", 2.0)], "q2": [("a", 1.0)]}
    assert evaluate(qrels, run, ["nDCG@10", "AP", "RR@10"]).means == {"nDCG@10": 0.5, "AP": 0.5, "RR@10": 0.5}
    assert evaluate({"q1": qrels["q1"]}, run, ["AP"]).means == {"AP": 0.0}


def test_negative_grades_are_not_relevant():
    """A document judged -2 (spam) ranks like a non-relevant one."""
    assert only("nDCG@2", qrels={"q": {"s": -2, "a": 1}}, run={"q": [("s", 2.0), ("a", 1.0)]}) == {
        "q": pytest.approx(1 / math.log2(3))
    }


def test_a_run_of_other_queries_is_an_error():
    """A mean of 0 would hide that the wrong qrels were given."""
    with pytest.raises(RankLLMError, match=r"no query of the run is judged: the run has 'x'; the qrels have 'q1'"):
        evaluate(QRELS, {"x": [("a", 1.0)]}, ["RR"])
    with pytest.raises(RankLLMError, match="the run is empty"):
        evaluate(QRELS, {}, ["RR"])


def test_bad_scores_and_repeated_docids_are_named():
    """Neither is silently sorted or dropped."""
    with pytest.raises(RankLLMError, match="query 'q2', docid 'a': score is nan"):
        evaluate(QRELS, {"q2": [("a", math.nan)]}, ["RR"])
    with pytest.raises(RankLLMError, match="query 'q2': docid 'a' occurs twice"):
        evaluate(QRELS, {"q2": [("a", 2.0), ("a", 1.0)]}, ["RR"])


@pytest.mark.parametrize(
    ("name", "key", "cutoff"),
    [
        ("nDCG@10", "ndcg_cut_10", 10),
        ("ndcg_cut.10", "ndcg_cut_10", 10),
        ("ndcg_cut_10", "ndcg_cut_10", 10),
        ("NDCG@10", "ndcg_cut_10", 10),
        ("ndcg", "ndcg", None),
        ("map", "map", None),
        ("MAP@100", "map_cut_100", 100),
        ("map_cut.100", "map_cut_100", 100),
        ("recip_rank", "recip_rank", None),
        ("MRR", "recip_rank", None),
        ("MRR@10", "recip_rank", 10),
        ("RR(rel=2)@10", "recip_rank", 10),
        ("recall.100", "recall_100", 100),
        ("R@100", "recall_100", 100),
        ("Recall@100", "recall_100", 100),
        ("P_10", "P_10", 10),
        ("P.10", "P_10", 10),
        ("Rprec", "Rprec", None),
        ("Bpref", "bpref", None),
        ("success.1", "success_1", 1),
    ],
)
def test_both_spellings_of_a_measure_are_known(name, key, cutoff):
    """The names used in papers and trec_eval's own."""
    (measure,) = parse_measures([name])
    assert (measure.label, measure.key, measure.cutoff) == (name, key, cutoff)


def test_several_cut_offs_are_several_measures():
    """trec_eval's `recall.100,1000`; a repeated measure is computed once."""
    labels = [measure.label for measure in parse_measures(["recall.100,1000", "P@5", "recall.100"])]
    assert labels == ["recall.100", "recall.1000", "P@5"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nDGC@10", r"measure 'nDGC@10': unknown; did you mean 'nDCG@10'\? known measures: nDCG"),
        ("ERR@20", r"measure 'ERR@20': unknown"),
        ("", "unknown"),
        ("P", r"measure 'P': needs a cutoff, such as P@10"),
        ("ndcg_cut", "needs a cutoff"),
        ("Rprec@5", "takes no cutoff"),
        ("P@0", "expected a cutoff from 1 to 1000000000"),
        ("P@99999999999999999999", "expected a cutoff from 1"),
        ("nDCG(rel=2)@10", "takes no rel="),
        ("AP(rel=0)", "expected rel of at least 1"),
    ],
)
def test_a_measure_that_cannot_be_is_an_error(name, message):
    """With the list of known measures and the closest name."""
    with pytest.raises(ConfigError, match=message):
        evaluate(QRELS, RUN, [name])


def test_a_relevance_level_below_one_is_an_error():
    """Level 0 would make every judged document relevant."""
    with pytest.raises(ConfigError, match="relevance level 0"):
        evaluate(QRELS, RUN, ["AP"], relevance_level=0)


def test_lines_hold_run_measure_and_four_decimals():
    """As printed by the command; with per_query a further column contains the query."""
    evaluation = evaluate(QRELS, RUN, ["RR", "P@4"])
    assert evaluation_lines("my.run", evaluation) == ["my.run\tRR\t0.3333", "my.run\tP@4\t0.2500"]
    assert evaluation_lines("my.run", evaluation, per_query=True)[:4] == [
        "my.run\tRR\tq1\t0.5000",
        "my.run\tRR\tq2\t0.5000",
        "my.run\tRR\tq3\t0.0000",
        "my.run\tRR\tall\t0.3333",
    ]


def test_the_record_is_json_with_full_precision():
    """Unrounded means, queries that count as 0, and values per query on request."""
    evaluation = evaluate(QRELS, RUN, ["RR", "P@4"])
    record = json.loads(json.dumps(evaluation_to_dict("my.run", evaluation, per_query=True)))
    assert record == {
        "run": "my.run",
        "measures": {"RR": 1 / 3, "P@4": 0.25},
        "n_queries": 3,
        "run_queries_only": False,
        "missing_qids": ["q3"],
        "unjudged_qids": ["q9"],
        "per_query": {"q1": {"RR": 0.5, "P@4": 0.5}, "q2": {"RR": 0.5, "P@4": 0.25}, "q3": {"RR": 0.0, "P@4": 0.0}},
    }
    assert "per_query" not in evaluation_to_dict("my.run", evaluation)


def test_rankings_that_come_one_by_one_have_the_same_means():
    """q1 and q2 have their first relevant passage at rank 2; unjudged queries and those without candidates do not
    count."""
    running = RunningEvaluation(QRELS, ["RR", "P@4"])
    assert running.result() is None
    for qid, ranking in (*RUN.items(), ("q3", [])):
        running.add(qid, ranking)
    evaluation = running.result()
    assert evaluation.n_queries == 2
    assert evaluation.means == pytest.approx({"RR": 1 / 2, "P@4": (2 / 4 + 1 / 4) / 2})
    assert evaluation.unjudged_qids == ("q9", "q3")
    assert evaluation_lines("run", evaluation) == ["run\tRR\t0.5000", "run\tP@4\t0.3750"]


def test_many_rankings_one_by_one_keep_each_query_its_own_value():
    """More queries than one evaluation batch: the odd-numbered ones have their relevant passage at rank 2."""
    qids = [f"q{number}" for number in range(150)]
    running = RunningEvaluation({qid: {"good": 1} for qid in qids}, ["RR"])
    for number, qid in enumerate(qids):
        running.add(qid, [("good", 1.0), ("bad", 2.0 if number % 2 else 0.0)])
    evaluation = running.result()
    assert evaluation.n_queries == 150
    assert list(evaluation.per_query["RR"]) == qids
    assert evaluation.per_query["RR"] == {qid: 0.5 if number % 2 else 1.0 for number, qid in enumerate(qids)}
    assert evaluation.means == {"RR": 0.75}
    assert running.result() == evaluation

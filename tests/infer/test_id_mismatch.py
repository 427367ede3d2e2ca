"""Mismatched runs and judgements are not scored as if they matched."""

from __future__ import annotations

import unicodedata

import pytest

from rankllm_core.errors import RankLLMError
from rankllm_infer.evaluation.compare import compare
from rankllm_infer.evaluation.evaluate import RunningEvaluation, evaluate
from rankllm_infer.evaluation.id_mismatch import spelling_difference

NFC, NFD = "Müller", unicodedata.normalize("NFD", "Müller")


@pytest.mark.parametrize(
    ("docid", "judged", "why"),
    [
        ("007", "7", r"; they differ in leading zeros \('007', '7'\)"),
        ("doc 12", "doc\u00a012", r"; they differ in blanks or invisible characters \('doc 12', 'doc\\xa012'\)"),
        ("d1\ufeff", "d1", r"; they differ in blanks or invisible characters \('d1\\ufeff', 'd1'\)"),
        (NFC, NFD, r"; they differ in their Unicode form \(NFC and NFD\) "),
        ("CACM-7", "cacm-7", r"; they differ in upper and lower case \('CACM-7', 'cacm-7'\)"),
        ("msmarco_passage_12", "12", r"; they differ in a prefix \('msmarco_passage_12', '12'\)"),
        ("a.txt", "a", r"; they differ in a file ending \('a.txt', 'a'\)"),
        ("D 007", "d7", r"; they differ in spelling \('D 007', 'd7'\)"),
        ("b0", "a0", "; use judgements of the same collection"),
    ],
)
def test_a_run_whose_docids_are_never_judged_is_an_error(docid, judged, why):
    """A mean of 0.0000 would look like a bad ranking; if only the spelling differs, that is reported."""
    with pytest.raises(RankLLMError, match="none of the run's docids is judged for its query: .*" + why):
        evaluate({"q": {judged: 1}}, {"q": [(docid, 1.0), ("other", 0.5)]}, ["RR"])


def test_swapped_columns_are_recognised():
    """`docid 0 qid grade`, and judgements whose documents belong to other queries."""
    run = {"q1": [("d1", 1.0)], "d1": [("q1", 1.0)]}
    with pytest.raises(RankLLMError, match="two columns seem to be swapped"):
        evaluate({"d1": {"x": 1}, "q1": {"y": 1}}, run, ["RR"])
    with pytest.raises(RankLLMError, match="they are judged for other queries"):
        evaluate({"q1": {"d2": 1}, "q2": {"d1": 1}}, {"q1": [("d1", 1.0)], "q2": [("d2", 1.0)]}, ["RR"])


def test_qids_that_differ_in_spelling_are_named():
    """Like docids."""
    with pytest.raises(RankLLMError, match=r"no query of the run is judged: .* leading zeros \('01', '1'\)"):
        evaluate({"1": {"d": 1}}, {"01": [("d", 1.0)]}, ["RR"])


def test_one_judged_candidate_is_enough():
    """A document judged non-relevant shows that the collections match: 0 is then the true value."""
    assert evaluate({"q": {"a": 1, "b": 0}}, {"q": [("b", 1.0)]}, ["RR"]).means == {"RR": 0.0}


def test_compare_names_the_run_that_does_not_belong():
    """The other run is fine."""
    runs = {"good": {"q": [("7", 1.0)]}, "padded": {"q": [("007", 1.0)]}}
    with pytest.raises(RankLLMError, match=r"^padded: none of the run's docids is judged .* leading zeros"):
        compare({"q": {"7": 1}}, runs, ["RR"])


def test_a_running_evaluation_knows_whether_anything_was_judged():
    """One query without judged candidates is not an error; a run without any has no meaningful measures."""
    figures = RunningEvaluation({"q": {"7": 1}, "r": {"8": 1}}, ["RR"])
    figures.add("q", [("007", 1.0)])
    assert not figures.has_judged_candidates
    figures.add("r", [("8", 1.0)])
    assert figures.has_judged_candidates
    assert figures.result().means == {"RR": 0.5}


def test_ids_that_are_the_same_do_not_differ():
    """Only a pair of different ids is a difference in spelling."""
    assert spelling_difference(["a", "b"], ["a", "c"]) == ""

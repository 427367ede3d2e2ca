"""Runs compared: every figure computed by hand from three queries."""

from __future__ import annotations

import pytest

from rankllm_core.errors import RankLLMError
from rankllm_infer.evaluation.compare import compare
from rankllm_infer.evaluation.comparison_text import comparison_lines, comparison_to_dict

QRELS = {"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 1}}
FIRST = [("a", 2.0), ("b", 1.0)]
"""RR 1."""
SECOND = [("b", 2.0), ("a", 1.0)]
"""RR 1/2."""
RUNS = {
    "base": {"q1": SECOND, "q2": SECOND, "q3": FIRST},
    "good": {"q1": FIRST, "q2": FIRST, "q3": FIRST},
    "bad": {"q1": SECOND, "q2": FIRST},
}


def test_means_changes_and_counts():
    """RR: base 1/2, 1/2, 1; good 1, 1, 1; bad 1/2, 1 and a missing q3, which counts as 0."""
    base, good, bad = compare(QRELS, RUNS, ["RR"]).measures["RR"]
    assert (base.mean, good.mean, bad.mean) == pytest.approx((2 / 3, 1.0, 1 / 2))
    assert base.difference is None
    assert good.difference.gains == {"q1": 0.5, "q2": 0.5, "q3": 0.0}
    assert (good.difference.n_better, good.difference.n_same, good.difference.n_worse) == (2, 1, 0)
    assert bad.difference.gains == {"q2": 0.5, "q1": 0.0, "q3": -1.0}
    assert (bad.difference.n_better, bad.difference.n_same, bad.difference.n_worse) == (1, 1, 1)
    assert good.interval == (1.0, 1.0)


def test_p_is_corrected_over_the_runs_of_a_measure():
    """good: two differences of the same sign, p 2/4; bad: -1 and 1/2, all sign patterns as extreme, p 1. Holm: 2 *
    1/2, 1."""
    _, good, bad = compare(QRELS, RUNS, ["RR"]).measures["RR"]
    assert (good.difference.p, good.difference.p_holm, good.difference.is_exact) == (0.5, 1.0, True)
    assert (bad.difference.p, bad.difference.p_holm) == (1.0, 1.0)
    [_, alone] = compare(QRELS, {"base": RUNS["base"], "good": RUNS["good"]}, ["RR"]).measures["RR"]
    assert alone.difference.p_holm == 0.5


def test_any_run_may_be_the_baseline():
    """The order of the runs is kept."""
    found = compare(QRELS, RUNS, ["RR"], baseline="good")
    assert found.baseline == "good"
    base, good, _ = found.measures["RR"]
    assert good.difference is None
    assert base.difference.mean == pytest.approx(-1 / 3)


def test_queries_that_a_run_lacks_can_be_left_out_for_all():
    """All runs are then compared on q1 and q2."""
    found = compare(QRELS, RUNS, ["RR"], run_queries_only=True)
    assert found.n_queries == 2
    assert [run.mean for run in found.measures["RR"]] == pytest.approx([0.5, 1.0, 0.75])
    assert found.missing_qids == {"base": (), "good": (), "bad": ("q3",)}


def test_the_table_can_be_read_in_columns():
    """One row per run, no change for the baseline; below, gains and losses with the values of baseline and run."""
    lines = comparison_lines(compare(QRELS, RUNS, ["RR"]), per_query=1)
    assert lines[0] == "RR over 3 queries, baseline base"
    assert lines[1].split() == ["run", "mean", "95", "%", "interval", "change", "p", "(Holm)", "better/same/worse"]
    assert lines[2].split()[:2] == ["base", "0.6667"]
    assert lines[3].split() == ["good", "1.0000", "1.0000-1.0000", "+0.3333", "1.0000", "2/1/0"]
    assert [line.index(cell) for line, cell in zip(lines[2:5], ("0.6667", "1.0000", "0.5000"), strict=True)] == [6] * 3
    assert lines[5:] == [
        "good  gained  q1  0.5000 -> 1.0000",
        "bad  gained  q2  0.5000 -> 1.0000",
        "bad  lost  q3  1.0000 -> 0.0000",
    ]


def test_the_record_holds_everything():
    """In full precision, and per query if requested."""
    record = comparison_to_dict(compare(QRELS, RUNS, ["RR", "P@1"]), per_query=True)
    assert list(record["measures"]) == ["RR", "P@1"]
    base, good, _ = record["measures"]["RR"]
    assert base["per_query"] == {"q1": 0.5, "q2": 0.5, "q3": 1.0}
    assert "p" not in base
    assert good["change"] == pytest.approx(1 / 3, abs=1e-15)
    assert (good["better"], good["same"], good["worse"]) == (2, 1, 0)
    assert record["missing_qids"]["bad"] == ["q3"]
    assert "per_query" not in comparison_to_dict(compare(QRELS, RUNS, ["RR"]))["measures"]["RR"][0]


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ({"base": RUNS["base"]}, {}, "expected at least two runs"),
        (RUNS, {"baseline": "best"}, "baseline 'best' is not among the runs: base, good, bad"),
        ({**RUNS, "other": {"x": FIRST}}, {}, "other: no query of the run is judged"),
        ({"a": {"q1": FIRST}, "b": {"q2": FIRST}}, {"run_queries_only": True}, "no judged query in common"),
    ],
)
def test_what_cannot_be_compared_is_named(runs, options, message):
    """One line."""
    with pytest.raises(RankLLMError, match=message):
        compare(QRELS, runs, ["RR"], **options)


def test_without_a_measure_there_is_nothing_to_compare_by():
    """One line."""
    with pytest.raises(RankLLMError, match="expected at least one measure"):
        compare(QRELS, RUNS, [])

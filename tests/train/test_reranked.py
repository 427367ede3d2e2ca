"""Only what a reranker actually ranked is used for training, whoever wrote the results."""

from __future__ import annotations

import pytest
from collections_on_disk import Collection, counts

from rankllm_core.errors import DataError, RankLLMError
from rankllm_train.data.rankings import ranking_of
from rankllm_train.preparation.label import RecordRule, label_results
from rankllm_train.preparation.windows import WindowRule, record_writer

UNRANKED = ("candidates", "not ranked by the reranker")


def line(qid, docids, *, n_ranked=None, status="ok", scores=None):
    """A line of results JSONL. scores: docid -> the model's score."""
    candidates = [
        {"docid": d, "score": -float(i), "doc": {"text": f"about {d}"}, "model_score": (scores or {}).get(d)}
        for i, d in enumerate(docids)
    ]
    record = {"query": {"text": f"query {qid}", "qid": qid}, "candidates": candidates}
    record |= {} if status is None else {"status": status}
    return record | ({} if n_ranked is None else {"n_ranked": n_ranked})


@pytest.fixture
def labelled(tmp_path):
    """Label complete results in one window; return the orders by qid, and the tally."""
    files = Collection(tmp_path)

    def label(*lines, depth=100, worst="repaired", run=None):
        rule = RecordRule(
            writer=record_writer(None, None, max_passage_words=300, max_size=20),
            windows=WindowRule(per_query=60, sample="uniform", require_relevant=False, shuffle=run is None),
        )
        results, output = files.jsonl(lines, "results.jsonl"), files.path("out.jsonl")
        run = None if run is None else files.run(run)
        tally = label_results(results, rule, output=output, depth=depth, worst_status=worst, run=run)
        longest = {}
        for record in files.read("out.jsonl"):
            order = [record["docids"][int(n) - 1] for n in ranking_of(record["conversations"][-1]["value"])]
            qid = record["id"].partition("_")[0]
            longest[qid] = max(longest.get(qid, []), order, key=len)
        return {qid: "".join(order) for qid, order in longest.items()}, tally

    return label


@pytest.mark.parametrize(("depth", "order"), [(100, "dcba"), (3, "dcb"), (4, "dcba"), (5, "dcba")])
def test_a_list_ends_where_the_reranker_stopped(labelled, depth, order):
    """4 of 12 candidates were reranked: the rest, in first-stage order, is dropped even if --depth would include it."""
    orders, tally = labelled(line("q", "dcbaefghijkl", n_ranked=4), depth=depth)
    assert orders == {"q": order}
    assert counts(tally).get(UNRANKED, 0) == max(0, min(depth, 12) - 4)
    assert tally.read["candidates"] == min(depth, 12)
    assert tally.notes == []


def test_a_query_with_too_few_ranked_candidates_is_left_out(labelled):
    """With none or one there is no order to learn."""
    orders, tally = labelled(line("a", "abc", n_ranked=0), line("b", "abc", n_ranked=1), line("c", "cab", n_ranked=3))
    assert orders == {"c": "cab"}
    assert counts(tally)["queries", "fewer candidates than --min-window 2"] == 2
    assert counts(tally)[UNRANKED] == 5


def test_first_stage_order_is_that_of_the_ranked_ones(labelled):
    """Only the ranked candidates are shown, in the order of the run."""
    orders, _ = labelled(line("q", "cabd", n_ranked=3), run={"q": {"d": 4, "a": 3, "b": 2, "c": 1}})
    assert orders == {"q": "cab"}


def test_results_of_an_earlier_version_with_scores_end_with_the_last_score(labelled):
    """Reranked candidates have a score, although a server may have omitted one in between; the tail never has one."""
    orders, tally = labelled(
        line("q", "dcbaef", scores={"d": 3.0, "c": 2.0, "a": 0.0}), line("r", "ab", scores={"a": 1.0, "b": 0.5})
    )
    assert orders == {"q": "dcba", "r": "ab"}
    assert counts(tally)[UNRANKED] == 2
    assert tally.notes == []


def test_results_of_an_earlier_version_without_scores_are_told_of(labelled):
    """A generated permutation does not show where it ends: all candidates are used, with a warning that says what to
    do.
    """
    orders, tally = labelled(line("q", "dcba"), line("r", "ab"))
    assert orders == {"q": "dcba", "r": "ab"}
    (note,) = tally.notes
    assert note.startswith("Warning: 2 results do not tell how many candidates were reranked")
    assert note.endswith("If --top-k-candidates was used, pass the same number as --depth")


def test_a_list_by_another_hand_is_learnt_whole(labelled):
    """A requests file has no status: its complete order is the target."""
    orders, tally = labelled(line("q", "dcba", status=None))
    assert (orders, tally.notes) == ({"q": "dcba"}, [])


def test_a_first_stage_order_is_not_learnt_whatever_status_is_wanted(labelled):
    """--worst-status fallback uses what such a list ranked, which results of an earlier version do not record."""
    lines = [line("a", "abcd", status="fallback"), line("b", "dcba", status="fallback", n_ranked=2), line("c", "ba")]
    orders, tally = labelled(*lines, worst="fallback")
    assert orders == {"b": "dc", "c": "ba"}
    assert counts(tally)[UNRANKED] == 4 + 2
    with pytest.raises(RankLLMError, match="no records to write; most common reason for skipping"):
        labelled(line("a", "abcd", status="failed"))


@pytest.mark.parametrize("n_ranked", [-1, 3, 1.5, "2", True, [2]])
def test_a_count_that_cannot_be_is_an_error(labelled, n_ranked):
    """The error gives the line."""
    with pytest.raises(DataError, match=r"results\.jsonl:1: n_ranked: expected an integer from 0 to 2"):
        labelled(line("q", "ab", n_ranked=n_ranked))

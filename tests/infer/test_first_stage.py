"""First stage with any searcher: order, depth, ties, queries without results."""

from __future__ import annotations

from rankllm_core.trec import to_float32
from rankllm_infer.retrieval.first_stage import retrieve


class Shelf:
    """Finds the same documents for every query except an empty one."""

    def __init__(self, *hits):
        self.hits = list(hits)
        self.depths = []

    def search(self, query, depth):
        self.depths.append(depth)
        return self.hits[:depth] if query else []


def test_tied_scores_fall_and_keep_their_order():
    """trec_eval's rule for ties must not reorder a list."""
    run = retrieve(Shelf(("b", 2.0), ("a", 1.0), ("c", 1.0)), {"q1": "x", "q2": ""}, depth=10)
    assert [docid for docid, _ in run["q1"]] == ["b", "a", "c"]
    scores = to_float32(score for _, score in run["q1"])
    assert scores[0] > scores[1] > scores[2] > 0.999
    assert run["q2"] == []


def test_the_query_itself_takes_nobodys_place():
    """One more is retrieved; at most the depth is kept."""
    shelf = Shelf(("q1", 3.0), ("b", 2.0), ("c", 1.0))
    assert retrieve(shelf, {"q1": "x"}, depth=2, remove_query=True) == {"q1": [("b", 2.0), ("c", 1.0)]}
    assert retrieve(shelf, {"q9": "x"}, depth=1, remove_query=True) == {"q9": [("q1", 3.0)]}
    assert shelf.depths == [3, 2]


def test_progress_counts_queries():
    """One call per query."""
    seen = []
    retrieve(Shelf(), {"q1": "x", "q2": "y"}, depth=1, progress=seen.append)
    assert seen == [1, 2]

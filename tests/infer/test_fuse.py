"""Weight of the first stage in the final order. Expected numbers are computed by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
from ranking_fakes import PlainPairWriter, docids, make_method

from rankllm_core.card import ListwiseCard, PointwiseCard
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.template import load_template
from rankllm_core.types import Candidate, Query, Request, Result
from rankllm_infer.api import Reranker
from rankllm_infer.engines.base import Answer
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.ranking.fuse import fuse, unit_scaled
from rankllm_infer.ranking.pointwise import PointwiseMethod
from rankllm_infer.ranking.settings import RankingSettings

QUERY = Query(qid="q", text="q")


def request_of(**scores):
    """A request whose candidates have these first-stage scores."""
    candidates = tuple(Candidate(docid=docid, score=score, doc={"text": docid}) for docid, score in scores.items())
    return Request(query=QUERY, candidates=candidates)


def result_of(**scores):
    """A result ordered by these model scores."""
    return Result(query=QUERY, candidates=tuple(Candidate(docid=d, score=s, model_score=s) for d, s in scores.items()))


REQUEST = request_of(a=10.0, b=8.0, c=6.0, d=0.0)
"""Scaled to 0..1: a 1, b .8, c .6, d 0."""
RESULT = result_of(d=3.0, b=2.0, a=1.0, c=-1.0)
"""Scaled to 0..1: d 1, b .75, a .5, c 0."""


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (0.0, "dbac"),
        (0.25, "bdac"),  # b .7625, d .75, a .625, c .15
        (0.5, "badc"),  # b .775, a .75, d .5, c .3
        (1.0, "abcd"),
    ],
)
def test_scores_from_0_to_1_are_mixed(weight, expected):
    """The weight applies to the first stage; 0 leaves the result unchanged."""
    fused = fuse(RESULT, REQUEST, weight, n_ranked=None, by_rank=False)
    assert "".join(docids(fused)) == expected
    assert (fused is RESULT) == (weight == 0)
    assert all(a.score > b.score for a, b in pairwise(fused.candidates))
    assert {c.docid: c.model_score for c in fused.candidates} == {"a": 1.0, "b": 2.0, "c": -1.0, "d": 3.0}


def test_the_fused_score_is_what_is_written():
    """For b: .25 x .8 + .75 x .75."""
    fused = fuse(RESULT, REQUEST, 0.25, n_ranked=None, by_rank=False)
    assert fused.candidates[0].score == pytest.approx(0.7625, abs=1e-6)


def test_an_order_counts_by_its_ranks():
    """d 1, b 2/3, a 1/3, c 0, averaged with a 1, b .8, c .6, d 0; listwise scores remain n - rank + 1."""
    result = Result(query=QUERY, candidates=tuple(Candidate(docid=d, score=4.0 - i) for i, d in enumerate("dbac")))
    fused = fuse(result, REQUEST, 0.5, n_ranked=None, by_rank=True)
    assert "".join(docids(fused)) == "badc"  # .7333, .6667, .5, .3
    assert [candidate.score for candidate in fused.candidates] == [4.0, 3.0, 2.0, 1.0]


@pytest.mark.parametrize("by_rank", [False, True])
def test_what_was_not_ranked_stays_behind(by_rank):
    """Only ranked candidates are scaled: b and a, with 8 and 10, become 0 and 1."""
    result = result_of(b=2.0, a=1.0, c=0.5, d=0.25)
    fused = fuse(result, REQUEST, 0.75, n_ranked=2, by_rank=by_rank)
    assert "".join(docids(fused)) == "abcd"
    assert all(a.score > b.score for a, b in pairwise(fused.candidates))


def test_without_first_stage_scores_its_order_counts():
    """a 1, b 2/3, c 1/3, d 0 averaged with d 1, b .75, a .5, c 0: a .75, b .708, d .5, c .167."""
    flat = request_of(a=0.0, b=0.0, c=0.0, d=0.0)
    assert "".join(docids(fuse(RESULT, flat, 0.5, n_ranked=None, by_rank=False))) == "abdc"
    assert "".join(docids(fuse(RESULT, flat, 1.0, n_ranked=None, by_rank=False))) == "abcd"


@pytest.mark.parametrize("by_rank", [False, True])
@pytest.mark.parametrize("tail", [(), (5.0,), (1.0,), (1.0, 0.5)])
def test_a_tied_head_counts_by_its_order_whatever_stands_behind_it(tail, by_rank):
    """Equal scores 5, 5, 5 of the three ranked candidates carry no information: with weight 1 the first-stage order
    counts."""
    behind = dict(zip("xy", tail, strict=False))
    request = request_of(a=5.0, b=5.0, c=5.0, **behind)
    result = result_of(c=3.0, b=2.0, a=1.0, **behind)
    fused = fuse(result, request, 1.0, n_ranked=3, by_rank=by_rank)
    assert "".join(docids(fused)) == "abc" + "".join(behind)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((1e308, 0.0, -1e308), [1.0, 0.5, 0.0]),
        ((1.7e308, -1.7e308), [1.0, 0.0]),
        ((-1e308, 1e308, 5e307), [0.0, 1.0, 0.75]),
        ((5e-324, 0.0), [1.0, 0.0]),
        ((1e308, 1e308), [0.0, 0.0]),
        ((3.0, 2.0, -1.0), [1.0, 0.75, 0.0]),
    ],
)
def test_scores_of_any_size_are_scaled(scores, expected):
    """The difference of two finite numbers may not be finite."""
    assert unit_scaled(scores) == pytest.approx(expected, abs=1e-15)
    assert all(0.0 <= value <= 1.0 for value in unit_scaled(scores))


def test_ties_are_in_the_models_order():
    """Equal model scores carry no information: all become 0."""
    assert unit_scaled([2.0, 2.0]) == [0.0, 0.0]
    tied = request_of(a=1.0, b=1.0, c=0.0, d=1.0)
    assert "".join(docids(fuse(RESULT, tied, 1.0, n_ranked=None, by_rank=False))) == "dbac"


def test_one_candidate_has_nobody_to_change_with():
    """The same holds for no candidates."""
    one = result_of(a=1.0)
    assert fuse(one, REQUEST, 0.5, n_ranked=None, by_rank=False) is one
    assert fuse(RESULT, REQUEST, 0.5, n_ranked=1, by_rank=False) is RESULT


def test_a_reranker_fuses_by_its_card():
    """The card's weight applies to every result; the model reverses the order."""
    liking = {"a": 0.0, "b": 1.0, "c": 2.0, "d": 3.0}
    engine = ScriptedEngine(lambda prompt: Answer(scores=(liking[prompt.text[-1]],)))
    for weight, expected in ((0.0, "dcba"), (0.9, "abcd")):
        card = PointwiseCard(template=load_template("rankllama"), fuse_weight=weight)
        reranker = Reranker(PointwiseMethod(card, RankingSettings(), PlainPairWriter()), engine)
        (result,) = reranker.rerank([REQUEST])
        assert "".join(docids(result)) == expected


def test_a_listwise_reranker_fuses_its_order():
    """The model reverses the four; equal weights give a .5, b .567, c .633 and d .5, which the model ranks before a."""
    card = {"window_size": 4, "stride": 2, "fuse_weight": 0.5}
    engine = ScriptedEngine(lambda prompt: Answer(text="[4] > [3] > [2] > [1]"))
    (result,) = Reranker(make_method(card=card), engine).rerank([REQUEST])
    assert "".join(docids(result)) == "cbda"


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_a_share_is_from_0_to_1(weight):
    """In both kinds of card."""
    with pytest.raises(ConfigError, match="fuse_weight: expected a number from 0 to 1"):
        PointwiseCard(template=load_template("rankllama"), fuse_weight=weight)
    with pytest.raises(ConfigError, match="fuse_weight: expected a number from 0 to 1"):
        ListwiseCard(template=load_template("rank_zephyr"), fuse_weight=weight)

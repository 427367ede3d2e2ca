"""Ranking methods: the interface required by Reranker, and a method for every kind of card."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ranking_fakes import docids, make_request, number

from rankllm_core.card import ListwiseCard, PairwiseCard, PointwiseCard
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.template import load_template, template_names
from rankllm_core.types import Result, Usage
from rankllm_infer.api import Reranker
from rankllm_infer.engines.base import Answer, Prompt
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.plan import METHODS, check_settings, make_method
from rankllm_infer.ranking.settings import RankingSettings

LISTWISE = ListwiseCard(template=load_template("rank_zephyr"))
POINTWISE = PointwiseCard(template=load_template("yes_no"), head="yes-no")
PAIRWISE = PairwiseCard(template=load_template("pairwise"))


class BestOfAll:
    """A method of another kind: one prompt names the best candidate, which comes first; the others follow."""

    card = LISTWISE
    read = "text"
    warnings = ()
    max_active = 2
    prompts_at_once = 1
    longest = 10
    sample = None

    def n_prompts(self, n_candidates):
        """One prompt for any number of candidates."""
        return 1

    def flow(self, request):
        """Yield a single prompt."""
        (answer,) = yield (Prompt(text=" ".join(candidate.docid for candidate in request.candidates), read="text"),)
        order = sorted(request.candidates, key=lambda candidate: candidate.docid != answer.text)
        scored = tuple(replace(candidate, score=float(-rank)) for rank, candidate in enumerate(order))
        return Result(query=request.query, candidates=scored, usage=answer.usage)


def test_a_new_method_is_run_by_the_reranker_as_it_is():
    """Reranker, pool and engine do not know its kind."""
    engine = ScriptedEngine(lambda prompt: Answer(text=max(prompt.text.split(), key=number), usage=Usage(calls=1)))
    reranker = Reranker(BestOfAll(), engine)
    results = reranker.rerank([make_request(f"q{n}", n) for n in (3, 5, 2, 4)])
    assert [docids(result) for result in results] == [
        ["d2", "d0", "d1"],
        ["d4", "d0", "d1", "d2", "d3"],
        ["d1", "d0"],
        ["d3", "d0", "d1", "d2"],
    ]
    assert (reranker.n_prompts(100), reranker.card.kind) == (1, "listwise")


def test_every_kind_of_card_has_a_method():
    """For each bundled template and every possible kind of card."""
    assert set(METHODS) == {ListwiseCard.kind, PointwiseCard.kind, PairwiseCard.kind}
    for name in template_names():
        template = load_template(name)
        if template.kind == "listwise":
            card = ListwiseCard(template=template)
        elif template.kind == "pairwise":
            card = PairwiseCard(template=template)
        else:
            head = "yes-no" if template.layout == "yes-no" else "sequence-classification"
            card = PointwiseCard(template=template, head=head)
        assert check_settings(card, RankingSettings()) in ("text", "head", "first-token")


@pytest.mark.parametrize(
    ("card", "n_prompts", "read", "max_active"),
    [(LISTWISE, 9, "text", 64), (POINTWISE, 100, "first-token", 16), (PAIRWISE, 9900, "first-token", 16)],
)
def test_the_card_decides_the_method(card, n_prompts, read, max_active):
    """100 candidates: nine windows of 20 with stride 10, one pair each, or every pair in both orders."""
    method = make_method(card, RankingSettings(), None)
    assert (method.n_prompts(100), method.read, method.max_active) == (n_prompts, read, max_active)
    assert (method.card, method.warnings, method.sample) == (card, (), None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategy": "tournament", "rank_top_k": 20}, "--rank-top-k 20: expected at least 1 and less than the window"),
        (
            {"short_windows": False, "num_passes": 2, "pass_depth": 25},
            "--pass-depth 25: leaves a window with fewer than 20",
        ),
        ({"strategy": "top-down", "free_decoding": False, "decode_top_k": 3}, "needs the first 10 of a window"),
    ],
)
def test_what_does_not_go_with_the_card_is_said_before_a_model_is_loaded(settings, message):
    """By the check alone, and by the method itself if unchecked."""
    settings = RankingSettings(**settings)
    with pytest.raises(ConfigError, match=message):
        check_settings(LISTWISE, settings)
    with pytest.raises(ConfigError, match=message):
        make_method(LISTWISE, settings, None)

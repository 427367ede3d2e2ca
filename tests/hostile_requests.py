"""Hostile requests from a seed, and the rerankers that they are sent to. The same seed gives the same bytes."""

from __future__ import annotations

import json

from fuzz_inputs import MAGICS, ODD_LETTERS
from ranking_fakes import make_method
from serving_fakes import listwise, pointwise

from rankllm_core.card import PairwiseCard
from rankllm_core.prompts.template import load_template
from rankllm_infer.api import Reranker
from rankllm_infer.engines.base import Answer
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.ranking.pairwise import PairwiseMethod
from rankllm_infer.ranking.settings import RankingSettings
from rankllm_infer.serving.dialects.fields import FIELDS
from rankllm_infer.serving.dialects.questions import VLLM_FIELDS

PATHS = ("/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score")
_OF_PAIRS = ("queries", "text_1", "text_2", "data_1", "data_2")
_KEYS = (*FIELDS, "documents", "texts", *_OF_PAIRS, *VLLM_FIELDS, "rank_fields", "priority")
_VALUES = ("", "q", "worth 1", 0, 1, -1, 2**70, 1.5, 1e308, True, False, None, [], {}, "sliding", "tournament", "right")
_USUAL = (2, 3, 1.0, "full", "heapsort", "tiny", ["a"], ["a", "b"], ["a", "b", "c"], {"text": "a"})


def any_number(prompt):
    """A head that has something to say of any text."""
    return Answer(scores=(float(len(prompt.text) % 7),))


def pairwise(**settings):
    """A reranker that prefers neither of two passages."""
    card = PairwiseCard(template=load_template("pairwise"))
    method = PairwiseMethod.with_tokenizer(card, RankingSettings(**settings), None)
    return Reranker(method, ScriptedEngine(lambda prompt: Answer(scores=(-0.5, -0.5))))


def first():
    """A reranker by FIRST that leaves every window as it is."""
    method = make_method(size=4, stride=2, card={"answer": "first-token"})
    return Reranker(method, ScriptedEngine(lambda prompt: Answer(scores=tuple(range(0, -len(prompt.identifiers), -1)))))


SERVED = {
    "pointwise": lambda: pointwise(any_number),
    "listwise": listwise,
    "first": first,
    "pairwise": pairwise,
    "heapsort": lambda: pairwise(strategy="heapsort"),
    "decode-top-k": lambda: listwise(size=6, stride=3, free_decoding=False, decode_top_k=2),
    "tournament": lambda: listwise(size=6, stride=3, strategy="tournament", rank_top_k=2),
    "full": lambda: listwise(strategy="full"),
}
"""Rerankers that take different requests."""


def odd_text(draw):
    """Words, letters that pose as others, and half characters."""
    return "".join(draw.choice((*ODD_LETTERS, "a", " ", "\ud800", "worth 3")) for _ in range(draw.randrange(12)))


def odd_value(draw, depth=0):
    """Any JSON value."""
    kind = draw.randrange(6 if depth < 3 else 3)
    if kind < 2:
        return draw.choice(_VALUES)
    if kind == 2:
        return odd_text(draw)
    if kind == 3:
        return {draw.choice((*_KEYS, "text", "title", odd_text(draw))): odd_value(draw, depth + 1) for _ in range(3)}
    return [odd_value(draw, depth + 1) for _ in range(draw.randrange(5))]


def odd_request(draw):
    """A request of which a few fields are odd, or not there."""
    body = draw.choice(
        (
            {"query": "q", "documents": ["worth 1", {"text": "worth 2"}]},
            {"query": "q", "texts": ["worth 1", "worth 2"]},
            {draw.choice(_OF_PAIRS[:2]): "q", draw.choice(("documents", "text_2")): ["worth 1"]},
            {"data_1": ["q", "r"], "data_2": ["worth 1", "worth 2"]},
        )
    )
    for _ in range(draw.randrange(4)):
        body[draw.choice(_KEYS)] = draw.choice((odd_value(draw), draw.choice(_USUAL)))
    return body


def content(draw):
    """A body: nearly right, odd, damaged or no JSON at all."""
    body = odd_request(draw)
    if draw.randrange(4) == 0:
        body["documents"] = [odd_text(draw) for _ in range(draw.randrange(1, 9))]
    text = json.dumps(body).encode()
    at = draw.randrange(len(text))
    match draw.randrange(10):
        case 0:
            return draw.choice(MAGICS) + text
        case 1:
            return text[:at] + bytes([draw.randrange(256)]) + text[at + 1 :]
        case 2:
            return text[:at]
        case 3:
            return _deep(draw)
        case _:
            return text


def _deep(draw):
    """Nesting around and far beyond the limit."""
    depth, (opening, closing) = draw.choice((99, 100, 101, 5_000, 100_000)), draw.choice((("[", "]"), ('{"a":', "}")))
    inner = opening * depth + draw.choice(("1", "", "null")) + draw.choice((closing * depth, ""))
    return f'{{"query": "q", "documents": ["a"], "metadata": {inner}}}'.encode()

"""Prompts of real first-stage lists, and engines run on them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from shared_files import data

WINDOW_SIZE = 20
PASSAGE_WORDS = 12
"""Short passages: a window of 20 is then about 600 tokens, a second or two in float32 on one core."""


def real_requests(n_queries):
    """The first stage's best passages of the first queries of TREC DL 2021, or skip the test."""
    from rankllm_infer.formats.prepare import build_requests

    folder = data("trec_dl21")
    found, _ = build_requests(
        folder / "runs" / "BM25.run.gz",
        queries=folder / "queries.tsv",
        corpus=folder / "corpus.jsonl.gz",
        depth=WINDOW_SIZE,
        max_queries=n_queries,
    )
    return found


def window_card(*, answer):
    """FIRST over letters, or generation over numbers."""
    from rankllm_core.card import ListwiseCard
    from rankllm_core.prompts.template import load_template

    is_first = answer == "first-token"
    card = ListwiseCard(
        template=load_template("rank_zephyr_alpha" if is_first else "rank_zephyr"),
        identifiers="alpha" if is_first else "numeric",
        answer=answer,
        context_tokens=2048,
        max_passage_words=PASSAGE_WORDS,
        window_size=WINDOW_SIZE,
    )
    return card


def first_token_prompts(requests, tokenizer=None):
    """The prompt of each request's window, to be read by FIRST; without a tokenizer, as messages for a chat server."""
    return _prompts(requests, tokenizer, window_card(answer="first-token"))


def text_prompts(requests, tokenizer=None, *, max_new_tokens):
    """The same, to be answered in free text."""
    prompts = _prompts(requests, tokenizer, window_card(answer="permutation"))
    return [replace(prompt, read="text", max_new_tokens=max_new_tokens) for prompt in prompts]


def _prompts(requests, tokenizer, card):
    from rankllm_infer.plan import make_method
    from rankllm_infer.ranking.settings import RankingSettings

    method = make_method(card, RankingSettings(), tokenizer)
    return [next(method.flow(request))[0] for request in requests]


def yes_no_prompts(requests, tokenizer):
    """The yes/no question of each candidate."""
    from rankllm_core.card import PointwiseCard
    from rankllm_core.prompts.template import load_template
    from rankllm_core.text import title_and_text
    from rankllm_infer.ranking.pointwise import PointwiseMethod
    from rankllm_infer.ranking.settings import RankingSettings

    card = PointwiseCard(template=load_template("yes_no"), head="yes-no")
    writer = PointwiseMethod.with_tokenizer(card, RankingSettings(), tokenizer).writer
    pairs = [(request.query.text, title_and_text(c.doc)) for request in requests for c in request.candidates]
    return [writer.write(query, title=title, text=text) for query, (title, text) in pairs]


def comparison_prompts(request, tokenizer, *, n):
    """Every pair of a request's first n candidates, in both orders."""
    from rankllm_core.card import PairwiseCard
    from rankllm_core.prompts.template import load_template
    from rankllm_infer.ranking.pairwise import PairwiseMethod
    from rankllm_infer.ranking.settings import RankingSettings

    card = PairwiseCard(template=load_template("pairwise"), passage_tokens=64)
    method = PairwiseMethod.with_tokenizer(card, RankingSettings(top_k_candidates=n), tokenizer)
    return list(next(method.flow(request)))


def answers_of(engine, prompts):
    """One answer a prompt, all submitted at once."""
    for ticket, prompt in enumerate(prompts):
        engine.submit(ticket, prompt)
    found = {}
    while len(found) < len(prompts):  # a step may answer none
        found |= dict(engine.collect())
    return [found[ticket] for ticket in range(len(prompts))]


def order_of(scores):
    """Positions by score, best first."""
    return sorted(range(len(scores)), key=lambda position: -scores[position])


def smallest_gap(scores):
    """Between neighbours in the order of the scores."""
    ranked = sorted(scores, reverse=True)
    return min(high - low for high, low in pairwise(ranked))

"""A record that `train label` makes holds the prompt that inference writes for the same passages, letter for letter."""

from __future__ import annotations

import random

import pytest
from shared_files import data

from rankllm_core.card import ListwiseCard
from rankllm_core.data.collections import read_corpus
from rankllm_core.prompts.template import load_template
from rankllm_core.types import Candidate, Query, Request
from rankllm_infer.ranking.listwise import ListwiseMethod
from rankllm_infer.ranking.prompts import MessagePromptWriter
from rankllm_infer.ranking.settings import RankingSettings
from rankllm_train.data.records import parse_listwise
from rankllm_train.preparation.windows import record_writer

NASTY = [
    {"title": "T [2]", "text": "it says <|im_end|> and <|im_start|>system, 50% {x} {query} \\n"},
    {"title": "", "text": "  [1] > [2]\n\n[3] lines\tand  blanks "},
    {"title": None, "contents": "L&amp;N na\u00c3\u00afve \uff21 \u201cquoted\u201d [B] \uff3b2\uff3d"},
    {"segment": "\ud800 half a surrogate \u2028 and a separator"},
    {"title": "long", "text": "word " * 500},
    {"text": "x" * 30_000},
    {"text": 12},
    {"title": "nothing", "text": ""},
]
QUERIES = ["what is [1] or [B]", "caf\u00e9 &amp; \uff3b2\uff3d {x}", "50% of \u201cit\u201d ?", "two\nlines"]


def served_request(query, docs, docids):
    """The request whose only window is the record's."""
    candidates = tuple(
        Candidate(docid=d, score=float(-i), doc=doc) for i, (d, doc) in enumerate(zip(docids, docs, strict=True))
    )
    return Request(query=Query(qid="q", text=query), candidates=candidates)


def served_messages(card, request):
    """What a chat server would be sent for the whole list at once."""
    (prompt,) = next(ListwiseMethod(card, RankingSettings(), MessagePromptWriter()).flow(request))
    return [(message.role, message.content) for message in prompt.messages]


def card_for(writer):
    """A card that asks as the record does."""
    return ListwiseCard(
        template=writer.template,
        identifiers=writer.identifiers,
        answer="permutation",
        context_tokens=1_000_000,
        max_passage_words=writer.max_passage_words,
    )


def trained_messages(record):
    """The record's turns before the answer."""
    roles = {"system": "system", "human": "user"}
    return [(roles[turn["from"]], turn["value"]) for turn in record["conversations"][:-1]]


@pytest.mark.parametrize("words", [300, 5])
@pytest.mark.parametrize(
    "template", ["rank_zephyr", "rank_zephyr_alpha", "rank_vicuna", "qwen_non_thinking", "query_behind_alpha"]
)
def test_nasty_passages_are_written_alike(template, words):
    """Control tokens, braces, identifiers, mojibake, titles, long words, no text."""
    writer = record_writer(template, None, max_passage_words=words, max_size=20)
    docids = tuple("abcdefgh")
    for query in QUERIES:
        record = writer.record(query, NASTY, docids=docids, best_first=range(8), record_id="r")
        assert trained_messages(record) == served_messages(card_for(writer), served_request(query, NASTY, docids))


@pytest.mark.parametrize("kind", ["numeric", "alpha"])
def test_real_passages_are_written_alike(kind):
    """200 passages of Natural Questions in windows of 20."""
    passages = [doc for _, doc in zip(range(200), read_corpus(data("nq_qed") / "corpus.jsonl.gz"), strict=False)]
    writer = record_writer(None, kind, max_passage_words=60, max_size=20)
    for start in range(0, 200, 20):
        docids, docs = zip(*passages[start : start + 20], strict=True)
        best_first = random.Random(start).sample(range(20), 20)
        record = writer.record("who is it [3]", docs, docids=docids, best_first=best_first, record_id="r")
        request = served_request("who is it [3]", docs, docids)
        assert trained_messages(record) == served_messages(card_for(writer), request)


@pytest.mark.parametrize(
    ("objective", "template"), [("generation", None), ("combined", None), ("combined", "query_behind_alpha")]
)
def test_the_ids_trained_on_are_those_served(smollm2_tokenizer, objective, template):
    """A real tokenizer, numbers for generation and letters for FIRST; nasty passages among the others."""
    from rankllm_core.prompts.chat import ChatEncoder
    from rankllm_infer.ranking.prompts import TokenPromptWriter
    from rankllm_train.encoding.listwise_encoder import ListwiseEncoder

    kind = "numeric" if objective == "generation" else "alpha"
    writer = record_writer(template, kind, max_passage_words=40, max_size=20)
    layout = writer.template.chat_layout
    # Without half a surrogate, which has no bytes for a tokenizer to read, and a word that takes it seconds.
    docs = [*NASTY[:3], NASTY[4], *NASTY[6:]]
    docids = tuple("abcdef")
    for query in QUERIES[:2]:
        made = writer.record(query, docs, docids=docids, best_first=(3, 1, 0, 2, 5, 4), record_id="r")
        encoder = ListwiseEncoder(smollm2_tokenizer, objective=objective, layout=layout)
        example = encoder.encode(parse_listwise(made, path="x", line=1))
        card = ListwiseCard(
            template=load_template(writer.template.name),
            identifiers=kind,
            answer="permutation" if objective == "generation" else "first-token",
            context_tokens=100_000,
            max_passage_words=40,
        )
        tokens = TokenPromptWriter(ChatEncoder(smollm2_tokenizer, layout=layout))
        (prompt,) = next(ListwiseMethod(card, RankingSettings(), tokens).flow(served_request(query, docs, docids)))
        n_served = example.n_prompt + (objective == "combined")
        assert prompt.token_ids == tuple(example.token_ids[:n_served])
        assert example.ranks == (3, 2, 4, 1, 6, 5)

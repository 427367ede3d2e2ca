"""FIRST readings and greedy generations against castorini/rank_llm@99f70f1, recorded with SmolLM2 in float32."""

from __future__ import annotations

import json
import math
import unicodedata

import pytest
from shared_files import golden

pytest.importorskip("torch")

from rankllm_core.answers.reader import read_answer
from rankllm_infer.engines.base import Prompt
from rankllm_infer.engines.openai.logprobs import identifier_scores
from rankllm_infer.engines.transformers.engine import TransformersEngine
from rankllm_infer.ranking.listwise import order_by_score
from rankllm_infer.ranking.settings import RankingSettings

TOLERANCE = 1e-3
"""Of a logit; attention kernels differ by 3e-5. The smallest gap between neighbours in a recorded order is 6e-3."""
LONG = 525
"""Tokens above which a prompt takes a second or more on one core."""


def recorded(kind):
    """The rows of one kind."""
    lines = golden("first_logits.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def run(loaded, prompts):
    """Answers in the order of the prompts."""
    engine = TransformersEngine(loaded)
    for ticket, prompt in enumerate(prompts):
        engine.submit(ticket, prompt)
    found = {}
    while batch := engine.collect():
        found |= dict(batch)
    return [found[ticket] for ticket in range(len(prompts))]


def check_first(loaded, rows):
    """Logits within the tolerance, and the very order."""
    prompts = [
        Prompt(
            text=row["prompt"],
            read="first-token",
            identifiers=tuple(row["identifiers"]),
            token_ids=tuple(row["input_ids"]),
        )
        for row in rows
    ]
    for row, answer in zip(rows, run(loaded, prompts), strict=True):
        assert answer.scores == pytest.approx(row["identifier_logits"], abs=TOLERANCE), row["id"]
        order, defects = order_by_score(answer.scores, row["identifiers"], [c["docid"] for c in row["candidates"]])
        assert list(order) == row["order"], row["id"]
        assert defects == ()


def test_identifier_logits_and_orders_are_those_recorded(smollm2_fp32):
    """Letters and digits, every identifier of the window, none cut off."""
    rows = [row for row in recorded("model") if len(row["input_ids"]) <= LONG]
    assert len(rows) == 5
    check_first(smollm2_fp32, rows)


@pytest.mark.slow
def test_identifier_logits_and_orders_of_full_windows_are_those_recorded(smollm2_fp32):
    """Every second one of the longer ones, up to twenty passages, with letters and with digits."""
    rows = [row for row in recorded("model") if len(row["input_ids"]) > LONG]
    assert len(rows) == 12
    assert {row["use_alpha"] for row in rows[::2]} == {True, False}
    check_first(smollm2_fp32, rows[::2])


def test_prompts_are_those_recorded(smollm2_tokenizer):
    """From query and candidates to text and ids, with the bracket that opens FIRST's answer."""
    from rankllm_core.card import ListwiseCard
    from rankllm_core.prompts.chat import ChatEncoder
    from rankllm_core.prompts.template import load_template
    from rankllm_core.types import Candidate, Query, Request
    from rankllm_infer.ranking.listwise import ListwiseMethod
    from rankllm_infer.ranking.prompts import TokenPromptWriter

    writer = TokenPromptWriter(ChatEncoder(smollm2_tokenizer))
    for row in recorded("model"):
        card = ListwiseCard(
            template=load_template(row["template"]),
            identifiers="alpha" if row["use_alpha"] else "numeric",
            answer="first-token",
            context_tokens=row["context_size"],
            max_passage_words=row["max_passage_words"],
        )
        candidates = tuple(Candidate(**candidate) for candidate in row["candidates"])
        request = Request(query=Query(**row["query"]), candidates=candidates)
        (prompt,) = next(ListwiseMethod(card, RankingSettings(), writer).flow(request))
        assert prompt.text == row["prompt"], row["id"]
        assert list(prompt.token_ids) == row["input_ids"], row["id"]
        assert list(prompt.identifiers) == row["identifiers"]


@pytest.mark.slow
def test_generated_texts_are_those_recorded(smollm2_fp32):
    """Two of four prompts, greedy: equal up to the first step at which two tokens were nearly as likely."""
    rows = [row for row in recorded("model") if row.get("generation")]
    assert len(rows) == 4
    rows = rows[::2]
    prompts = [
        Prompt(
            text=row["generation"]["prompt"],
            read="text",
            # The generations were recorded from the prompt without FIRST's bracket.
            token_ids=tuple(row["input_ids"][:-1]),
            max_new_tokens=100,
        )
        for row in rows
    ]
    tokenizer = smollm2_fp32.tokenizer
    for row, answer in zip(rows, run(smollm2_fp32, prompts), strict=True):
        generation = row["generation"]
        sure = next(
            (step for step, margin in enumerate(generation["step_margin"]) if margin <= TOLERANCE),
            len(generation["token_ids"]),
        )
        assert sure >= 20, row["id"]
        expected = tokenizer.decode(generation["token_ids"][:sure], skip_special_tokens=True)
        assert answer.text.startswith(expected), row["id"]
        if sure == len(generation["token_ids"]):
            assert answer.text == expected
            order = read_answer(generation["text"], row["identifiers"]).order
            assert read_answer(answer.text, row["identifiers"]).order == order


def label_of(token):
    """What the original reads in a reported token: a letter, or a digit of any script but no small one."""
    if len(token) != 1:
        return token
    digit = unicodedata.decimal(token, None)
    return token if digit is None else str(digit)


def test_reported_log_probabilities_are_ordered_as_recorded():
    """The likeliest token of each identifier counts, and what is not reported follows in prompt order."""
    for row in recorded("evaluate_logits"):
        labels = [chr(65 + i) if row["use_alpha"] else str(i + 1) for i in range(row["n"])]
        told = dict.fromkeys(labels, -math.inf)
        for token, logprob in row["tokens"]:
            if (label := label_of(token)) in told:
                told[label] = max(told[label], logprob)
        order, defects = order_by_score(list(told.values()), labels, labels)
        assert sorted(order) == list(range(row["n"]))
        assert len(defects) == sum(map(math.isinf, told.values()))
        # The original stops at a token of two digits, such as 10; here it is one that no identifier is spelt like.
        assert row["order"] is None or list(order) == row["order"], row["id"]
        assert len(identifier_scores(labels, row["tokens"])) == row["n"]

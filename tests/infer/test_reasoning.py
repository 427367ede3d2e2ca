"""An answer truncated within its reasoning is reported, and reasoning is never read as a ranking."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ranking_fakes import docids, make_method, make_request, rerank

from rankllm_core.prompts.template import Message, Span
from rankllm_core.types import Usage
from rankllm_infer.engines.base import Answer, Prompt
from rankllm_infer.engines.openai.chat import read_answer as read_reply
from rankllm_infer.engines.openai.settings import OpenAISettings
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.ranking.prompts import is_cut_in_reasoning

CUT = "ranks 1-3: reasoning was cut at 9 tokens"


def answered(text, *, is_truncated=True, template="reasonrank", n_tokens=9, **plan):
    """Result for three passages with this model output."""
    answer = Answer(text=text, is_truncated=is_truncated, usage=Usage(calls=1, completion_tokens=n_tokens))
    (result,) = rerank(
        ScriptedEngine(lambda prompt: answer), [make_request("q", 3)], make_method(template=template, **plan)
    )
    return result


@pytest.mark.parametrize(
    "text",
    [
        "<think> [3] is about cats, [2] is not",
        "<think>[3] > [2] > [1]",
        "<THINK> [3] > [2] > [1] and so",
        "[3] > [2] > [1] <think> or rather",
        "I look at [3] > [2] > [1], and then",
        "",
        " \n",
        "<think> done </think> So the order [3] > [2] > [1]",
        "<think> done </think>",
        "<think> the <answer> will hold [3] > [2] > [1], since",
        "<thinking> [3] > [2] > [1]",
        "[THINK] [3] > [2] > [1]",
    ],
)
def test_reasoning_that_was_cut_is_no_answer(text):
    """The prompt's order is kept, and the defect gives the reason."""
    result = answered(text)
    assert (result.status, result.defects) == ("fallback", (CUT,))
    assert docids(result) == ["d0", "d1", "d2"]


@pytest.mark.parametrize(
    ("text", "status", "defects"),
    [
        ("<think> a </think> <answer> [3] > [2] > [1] </answer>", "ok", ()),
        ("<think> a </think> <answer> [3] > [2] > [1]", "ok", ()),
        ("<think> a <answer> [3] > [2] > [1] </answer>", "ok", ()),
        ("<answer> [3] > [2]", "repaired", ("ranks 1-3: missing [1]", "ranks 1-3: the answer was cut at 9 tokens")),
    ],
)
def test_an_answer_that_was_reached_is_read(text, status, defects):
    """Even if it was truncated at the token limit; missing passages are reported with the reason."""
    result = answered(text)
    assert (result.status, result.defects) == (status, defects)
    assert docids(result) == ["d2", "d1", "d0"]


def test_what_the_model_ended_itself_is_read_as_ever():
    """A model that ranks without reasoning has answered."""
    result = answered("[3] > [2] > [1]", is_truncated=False)
    assert (result.status, docids(result)) == ("ok", ["d2", "d1", "d0"])


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("[3] > [2] > [1]", "ok"),
        ("[3] > [2] > [", "repaired"),
        ("<think> [3] > [2] > [1]", "fallback"),
        ("<think> a </think> [3] > [2] > [1]", "ok"),
        ("", "fallback"),
    ],
)
def test_a_template_without_reasoning_has_answers_of_just_their_length(text, status):
    """Those usually end at the token limit; unclosed reasoning is still reasoning."""
    result = answered(text, template="rank_zephyr")
    assert result.status == status
    if status == "fallback":
        assert result.defects == (CUT,)


def test_the_number_of_tokens_is_the_prompts_where_the_server_counts_none():
    """`[1] > [2] > [3]` in three words and two signs."""
    assert answered("<think>", n_tokens=0).defects == ("ranks 1-3: reasoning was cut at 5 tokens",)


def test_a_system_message_that_asks_for_reasoning_counts():
    """It replaces the template's own."""
    asks = "Think, then write <answer> [2] > [1] </answer>."
    assert answered("I see [3] > [2]", template="rank_zephyr", system_message=asks).defects == (CUT,)
    assert answered("I see [3] > [2]", system_message="Rank.").status == "repaired"


@pytest.mark.parametrize(
    ("ending", "is_cut"), [("<think>\n", True), ("<think>", True), ("<think>\n\n</think>\n\n", False)]
)
def test_a_thought_that_the_prompt_opens_is_one(ending, is_cut):
    """Chat templates of reasoning models do so."""
    prompt = Prompt(text="<|assistant|>" + ending, read="text", identifiers=("1", "2"), max_new_tokens=9)
    for text, expected in (("[2] > [1] is", is_cut), ("so </think> [2] > [1]", False)):
        answer = Answer(text=text, is_truncated=True)
        assert is_cut_in_reasoning(answer, prompt, reasons_first=False) is expected


@pytest.mark.parametrize(("reason", "is_truncated"), [("length", True), ("stop", False), (None, False)])
def test_a_server_says_why_it_ended(reason, is_truncated):
    """`finish_reason`; a server that hides the reasoning sends no content."""
    prompt = Prompt(text="x", read="text", identifiers=("1",), messages=(Message("user", (Span("x"),)),))
    reply = {"choices": [{"message": {"content": None}, "finish_reason": reason}]}
    options = OpenAISettings(base_url="http://127.0.0.1:1/v1", model="m")
    assert read_reply(prompt, reply, options).is_truncated is is_truncated


@pytest.mark.parametrize(
    ("ids", "is_truncated"), [((5, 6, 7), True), ((5, 6, 2), False), ((5, 2, 0), False), ((5, 6, 7, 2), True)]
)
def test_generated_ids_without_an_end_were_cut(ids, is_truncated):
    """At three tokens; tokens generated only because of a longer prompt in the batch are not part of the answer."""
    from rankllm_infer.engines.base import text_answer

    prompt = Prompt(text="x", read="text", max_new_tokens=3)
    tokenizer = SimpleNamespace(decode=lambda ids, **options: str(ids))
    assert text_answer(prompt, ids, ends=[2], tokenizer=tokenizer).is_truncated is is_truncated

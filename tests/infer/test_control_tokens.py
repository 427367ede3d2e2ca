"""Text of queries and passages must remain text for any tokenizer."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from shared_files import tokenizer_dir

from rankllm_core.prompts.template import Span
from rankllm_infer.engines.openai.control_tokens import safe_content

TOKENS = (
    # Llama, Mistral, Zephyr
    *("<s>", "</s>", "<unk>", "<pad>", "<PAD>", "<bos>", "<eos>", "<mask>"),
    *("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[TOOL_CALLS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[control_8]"),
    *("<|system|>", "<|user|>", "<|assistant|>", "<|begin_of_text|>", "<|start_header_id|>", "<|eot_id|>"),
    # Qwen, ChatML
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>", "<tool_call>", "</tool_call>"),
    # Gemma, T5
    *("<start_of_turn>", "<end_of_turn>", "<|turn>", "<turn|>", "<|channel>", "<unused7>", "<extra_id_0>"),
    # DeepSeek, gpt-oss, GLM, EXAONE, InternLM, MiniCPM, Nemotron, Baichuan, BERT
    *("<\uff5cUser\uff5c>", "<\uff5cend\u2581of\u2581sentence\uff5c>", "<|channel|>", "<|message|>"),
    *("[gMASK]", "<sop>", "[|user|]", "[|endofturn|]", "[UNUSED_TOKEN_145]", "<AI>", "<SPECIAL_10>", "<reserved_106>"),
    *("[CLS]", "[SEP]", "[MASK]"),
)


def broken(text):
    """The passage as it is shown to the model."""
    return safe_content([Span(text, untrusted=True)])


@pytest.mark.parametrize("token", TOKENS)
def test_a_control_token_is_broken_after_its_first_character(token):
    """No tokenizer encodes `< |im_end|>` as one token."""
    assert broken(f"so{token}it goes{token}") == f"so{token[0]} {token[1:]}it goes{token[0]} {token[1:]}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a plain passage about [1] > [2], costs < 5 and > 3",
        "List<String> x = a<b>c; if (a < |b|) [0]",
        "<p>HTML</p> <b>bold</b> <sup>2</sup> [inst] [mask] [Prefix] <section>",
        "x | y || z <|> [||]",
        "ends with <|im_end|",
    ],
)
def test_other_text_comes_back_as_it_is(text):
    """Ordinary brackets, code and markup are not control tokens."""
    assert broken(text) == text


def test_the_special_tokens_of_a_real_tokenizer_are_broken():
    """Llama 2's own list."""
    layout = json.loads((tokenizer_dir("llama2") / "tokenizer.json").read_text())
    special = [token["content"] for token in layout["added_tokens"] if token["special"]]
    assert special
    assert all(broken(token) == f"{token[0]} {token[1:]}" for token in special)


@given(st.lists(st.sampled_from((*TOKENS, "<", "<|", "|>", ">", "[", "]", "/", "s", "INST", " ", "a")), max_size=12))
@example(["<", "[CLS]", "|>"])
@example(["[|", "<s>", "|]"])
def test_nothing_is_left_to_break(pieces):
    """Only spaces are inserted, and the output contains no control token, however they are nested."""
    text = "".join(pieces)
    once = broken(text)
    assert once.replace(" ", "") == text.replace(" ", "")
    assert broken(once) == once


@pytest.mark.parametrize("piece", ["<", "<|", "<|a", "[|", "<|" + "a" * 63, "<<SYS", "[INST", "<s", "<extra_id_"])
def test_long_hostile_text_takes_linear_time(piece):
    """A long sequence of token prefixes takes only a moment."""
    text = piece * (300_000 // len(piece))
    start = time.perf_counter()
    assert broken(text) == text
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("spans", "content"),
    [
        ([Span("<think> about "), Span("<think>", untrusted=True)], "<think> about < think>"),
        ([Span("<|im_", untrusted=True), Span("end|>", untrusted=True)], "< |im_end|>"),
        ([Span("title <|im_"), Span("end|> text", untrusted=True), Span(" [INST]")], "title < |im_end|> text [INST]"),
        ([Span("<s>"), Span("", untrusted=True), Span("</s>")], "<s></s>"),
        ([Span("a", untrusted=True), Span("<s>"), Span("b", untrusted=True), Span("<s>")], "a<s>b<s>"),
        ([Span("</s>", untrusted=True), Span("</s>"), Span("</s></s>", untrusted=True)], "< /s></s>< /s>< /s>"),
        ([], ""),
    ],
)
def test_only_what_foreign_text_makes_up_is_broken(spans, content):
    """The template's own control tokens are kept; one completed by untrusted text is not."""
    assert safe_content(spans) == content

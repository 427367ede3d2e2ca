"""Prompts are measured without the server's tokenizer: overestimated rather than underestimated."""

from __future__ import annotations

import gzip
import json
from itertools import islice

import pytest
from shared_files import data, tokenizer_dir

from rankllm_core.prompts.template import Message, Span
from rankllm_infer.ranking.prompts import estimate_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("the cat", 2),
        ("thirteen chr", 4),  # 8 / 3.25 + 1 = 3.46
        ("1234", 4),
        ("a, b!\n", 5),
        ("    ", 0),
        ("naïve", 3),
        ("日本", 4),
        ("😀", 4),
        ("\ud800", 2),
    ],
)
def test_text_is_counted_by_words_and_characters(text, tokens):
    """By hand, from the documented costs, plus 6 per turn and 32 per prompt."""
    assert estimate_tokens([Message("user", (Span(text),))]) == 32 + 6 + tokens


def test_every_turn_costs_its_frame():
    """A prompt without turns still has its own overhead."""
    assert estimate_tokens([]) == 32
    assert estimate_tokens([Message("system", ()), Message("user", (Span("a"), Span("b")))]) == 32 + 6 + 6 + 1


@pytest.mark.parametrize("name", ["nfcorpus", "cosqa", "nq_qed"])
def test_windows_of_real_passages_are_never_estimated_too_short(name):
    """Medical abstracts, code and Wikipedia, counted by Llama 2's tokenizer; overestimated by less than a third."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_dir("llama2") / "tokenizer.json"))
    (path,) = data(name).glob("corpus.jsonl*")
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in islice(lines, 200)]
    for start in range(0, len(texts), 20):
        window = "\n".join(texts[start : start + 20])
        tokens = len(tokenizer.encode(window, add_special_tokens=False).ids)
        estimate = estimate_tokens([Message("user", (Span(window),))]) - 32 - 6
        assert tokens <= estimate <= 1.33 * tokens

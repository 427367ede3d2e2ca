"""Shorten passages until a window fits the context."""

from __future__ import annotations

import pytest
from ranking_fakes import make_method

from rankllm_core.types import Candidate, Query, Request
from rankllm_infer.ranking.prompts import WrittenPrompt
from rankllm_infer.ranking.window_prompts import ContextTooSmallError, fit_window


def prompt_of(n_tokens):
    """A prompt with this many tokens."""
    return WrittenPrompt(text="", n_tokens=n_tokens)


def test_the_recorded_case_of_the_original():
    """Context 512, 20 passages of 200 words, one token per word: the reference ends at 17 words and 469 tokens."""
    candidates = tuple(Candidate(docid=str(i), score=1.0, doc={"text": " ".join(["lorem"] * 200)}) for i in range(20))
    request = Request(query=Query(qid="q", text="alpha beta"), candidates=candidates)
    (prompt,) = next(make_method(card={"context_tokens": 512}).flow(request))
    assert len(prompt.text.split()) == 469
    assert prompt.max_new_tokens == 39
    assert prompt.text.count("lorem") == 20 * 17


@pytest.mark.parametrize(
    ("context", "words", "asked"),
    [
        # 2 passages of `words` words and 10 words besides: over // (4 * 2) words go at each step, at least one.
        (110, 50, [50]),
        (109, 49, [50, 49]),
        (90, 40, [50, 48, 46, 45, 44, 43, 42, 41, 40]),
        (12, 1, None),
    ],
)
def test_words_are_taken_off_by_the_originals_rule(context, words, asked):
    """Each passage loses a quarter of its share of the excess, at least one word, until the window fits."""
    seen = []

    def write(n_words, n_characters):
        seen.append((n_words, n_characters))
        return prompt_of(10 + 2 * n_words)

    prompt, fitted = fit_window(write, n_passages=2, longest_words=50, max_words=50, prompt_tokens=context, qid="q")
    assert (fitted, prompt.n_tokens) == (words, 10 + 2 * words)
    assert asked is None or seen == [(n, None) for n in asked]


def test_a_passage_without_blanks_is_cut_by_characters():
    """One word may be a page of Chinese: below one word per passage, the number of characters is halved."""
    seen = []

    def write(n_words, n_characters):
        seen.append((n_words, n_characters))
        return prompt_of(10 + 2 * min(n_characters or 4000, 4000))

    prompt, words = fit_window(write, n_passages=2, longest_words=300, max_words=300, prompt_tokens=100, qid="q")
    assert words == 1
    assert prompt.n_tokens == 10 + 2 * 32
    assert seen[-4:] == [(1, 256), (1, 128), (1, 64), (1, 32)]


@pytest.mark.parametrize("over", [1, 10_000_000])
def test_a_query_that_leaves_no_room_is_an_error_that_names_it(over):
    """The original loops forever here. Ours reports the numbers, and ends after a bounded number of prompts."""
    calls = 0

    def write(n_words, n_characters):
        nonlocal calls
        calls += 1
        return prompt_of(100 + over)

    with pytest.raises(
        ContextTooSmallError, match=rf"query 'q7': the prompt takes {100 + over} tokens .*, but 100 are"
    ):
        fit_window(write, n_passages=20, longest_words=300, max_words=300, prompt_tokens=100, qid="q7")
    assert calls <= 300 + 10


def test_a_negative_budget_is_the_same_error():
    """An answer longer than the context leaves a negative budget."""
    with pytest.raises(ContextTooSmallError, match="query 'q'"):
        fit_window(lambda *_: prompt_of(5), n_passages=2, longest_words=3, max_words=3, prompt_tokens=-4, qid="q")


def test_a_prompt_that_cannot_change_is_not_written_again():
    """Passages of 40 words are the same at 300 words or 41: the rule starts from 300, but rendering starts at 40."""
    seen = []

    def write(n_words, n_characters):
        seen.append(n_words)
        return prompt_of(10 + 2 * min(n_words, 40))

    for longest in (300, 40):
        seen.clear()
        _, words = fit_window(write, n_passages=2, longest_words=longest, max_words=300, prompt_tokens=80, qid="q")
        assert words == 35
    # 90 tokens are 10 over: one word a step, each step's prompt but the first below 40 words.
    assert seen == [300, 39, 38, 37, 36, 35]

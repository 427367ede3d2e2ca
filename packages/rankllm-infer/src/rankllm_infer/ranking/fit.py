"""Shorten passages until a window fits the context.

Source: castorini/rank_llm 1b3cabb, RankListwiseOSLLM.create_prompt (reference section 3.3), with a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable

from rankllm_core.errors import RankLLMError
from rankllm_infer.ranking.prompts import WrittenPrompt


class ContextTooSmallError(RankLLMError):
    """Not even one character a passage fits beside the query."""


def fit_window(
    write: Callable[[int, int | None], WrittenPrompt],
    *,
    n_passages: int,
    longest_words: int,
    max_words: int,
    prompt_tokens: int,
    qid: str,
) -> tuple[WrittenPrompt, int]:
    """The window's prompt with the most words a passage that the original's rule finds, and that number of words.

    write: the prompt with so many words a passage, and of those so many characters (None: all). longest_words: of the
    longest passage; with as many words or more the prompt is the same. prompt_tokens: tokens the prompt may have
    (context less answer).
    Raises ContextTooSmallError naming the query when one character a passage is still too much.
    """
    words, characters = max_words, None
    prompt = write(words, characters)
    if prompt.n_tokens > _HOPELESS * prompt_tokens and (least := write(1, 1)).n_tokens > prompt_tokens:
        raise _too_small(qid, least.n_tokens, prompt_tokens)
    while (over := prompt.n_tokens - prompt_tokens) > 0:
        if words > 1:
            words = max(1, words - max(1, over // (4 * n_passages)))
            if words >= longest_words:
                continue
        elif characters != 1:
            # Text without blanks: one "word" can be a whole page.
            characters = _MOST_CHARACTERS if characters is None else characters // 2
        else:
            raise _too_small(qid, prompt.n_tokens, prompt_tokens)
        prompt = write(words, characters)
    return prompt, words


def _too_small(qid: str, n_tokens: int, prompt_tokens: int) -> ContextTooSmallError:
    return ContextTooSmallError(
        f"query {qid!r}: the prompt takes {n_tokens} tokens with one character a passage, and {prompt_tokens} are left "
        "for it; shorten the query, or use a smaller --window-size (--strategy full: --top-k-candidates) or a larger "
        "--context-size"
    )


_HOPELESS = 4
"""A first prompt so many times too long is tried at its least at once: cutting step by step could take a minute."""
_MOST_CHARACTERS = 256
"""Where cutting by characters begins; halved until it fits."""

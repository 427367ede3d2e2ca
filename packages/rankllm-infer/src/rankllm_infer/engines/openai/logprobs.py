"""Identifiers' scores from the log-probabilities that a server reports for the first token of its answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rankllm_infer.engines.base import Prompt
from rankllm_infer.engines.openai.problems import ServerProblem, incomplete

_BLANKS = (" ", "▁", "Ġ")
"""How servers write the blank that a token begins with: as it is, or as the tokenizer's own sign for it."""

_SAME = 1e-3
"""Log-probabilities this close belong to one token: servers compute the two that they report in different ways."""
_NOT_TOLD = -9999.0
"""OpenAI and vLLM write this for "very unlikely", in place of a log-probability that JSON cannot carry (-inf)."""


def first_token_scores(prompt: Prompt, choice: Mapping[str, object]) -> tuple[float, ...]:
    """One log-probability an identifier, in prompt order.

    choice: one of a chat completion's choices. Raises ServerProblem where it holds none that can be trusted.
    """
    sampled, reported = _first_token(choice, prompt)
    opening = opening_of(prompt)
    if opening.endswith("[") and sampled.lstrip("".join(_BLANKS)).startswith("["):
        raise _unreadable(
            f"the server began the answer anew instead of continuing {opening[-20:]!r}, so it ignores "
            f"continue_final_message{way_out(prompt)}"
        )
    scores = identifier_scores(prompt.identifiers, reported)
    _check_reported(prompt, scores, reported)
    return scores


def identifier_scores(identifiers: Sequence[str], reported: Sequence[tuple[str, float]]) -> tuple[float, ...]:
    """One log-probability an identifier, in their order; -inf where no token of that text is reported.

    reported: text and log-probability of each token. Words (yes, no) are the sum of all their spellings: any case,
    blanks around. Other identifiers (A, 12) are spelt as they are, with at most one blank before, and the likeliest of
    several tokens of the same text counts.

    Source: castorini/rank_llm@99f70f1 src/rank_llm/rerank/listwise/rank_listwise_os_llm.py, `_evaluate_logits`.
    """
    if _are_words(identifiers):
        sums = {identifier.lower(): 0.0 for identifier in identifiers}
        for token, logprob in reported:
            word = token.strip("".join(_BLANKS)).lower()
            if word in sums:
                sums[word] += math.exp(logprob)
        return tuple(_log(sums[identifier.lower()]) for identifier in identifiers)
    best = dict.fromkeys(identifiers, -math.inf)
    for token, logprob in reported:
        bare = token[1:] if token.startswith(_BLANKS) else token
        if bare in best:
            best[bare] = max(best[bare], logprob)
    return tuple(best[identifier] for identifier in identifiers)


def opening_of(prompt: Prompt) -> str:
    """The beginning of the assistant's turn that the model is to continue; empty where there is none."""
    last = prompt.messages[-1] if prompt.messages else None
    return last.content if last is not None and last.role == "assistant" else ""


def way_out(prompt: Prompt) -> str:
    """What to do where a server cannot be read this way, as the end of a message."""
    if prompt.read == "text":
        return ""
    if not opening_of(prompt).endswith("["):
        method = "pointwise scoring" if _are_words(prompt.identifiers) else "comparing passages"
        return f"; {method} is not possible over this server: use another one, or --engine transformers"
    return "; FIRST is not possible over this server: use --no-use-logits"


def _first_token(choice: Mapping[str, object], prompt: Prompt) -> tuple[str, list[tuple[str, float]]]:
    """The first token's text, and the likeliest tokens in its place with their log-probabilities."""
    logprobs = choice.get("logprobs")
    positions = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(positions, list) or not positions:
        raise _unreadable(f"the server gave no log-probabilities{way_out(prompt)}")
    sampled = positions[0]
    likeliest = sampled.get("top_logprobs") or [] if isinstance(sampled, dict) else None
    if not isinstance(likeliest, list):
        raise incomplete("`top_logprobs`")
    first = _token(sampled)
    return first[0], _each_once([*(_token(entry) for entry in likeliest), first])


def _each_once(reported: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The tokens without repetitions. The sampled one is mostly reported twice, and may differ in the last digits.

    Two tokens of the same text (with and without a blank that the server does not show) have other probabilities.
    """
    kept: list[tuple[str, float]] = []
    for token, logprob in reported:
        if not any(token == other and math.isclose(logprob, known, abs_tol=_SAME) for other, known in kept):
            kept.append((token, logprob))
    return kept


def _token(entry: object) -> tuple[str, float]:
    if isinstance(entry, dict):
        token, logprob = entry.get("token"), entry.get("logprob")
        # Rounding may push the likeliest token a little above 0. NaN is above nothing and below nothing.
        if isinstance(token, str) and type(logprob) in (int, float) and -1e9 < logprob < 0.01:
            return token, float(logprob) if logprob > _NOT_TOLD else -math.inf
        if isinstance(token, str) and logprob == -math.inf:
            return token, -math.inf
    raise incomplete("`token` as text and `logprob` as a number")


def _check_reported(prompt: Prompt, scores: Sequence[float], reported: Sequence[tuple[str, float]]) -> None:
    """Raises ServerProblem where the scores say nothing, or something else than they seem to."""
    if all(map(math.isinf, scores)):
        wanted = ", ".join(prompt.identifiers[:3]) + (", ..." if len(prompt.identifiers) > 3 else "")
        seen = ", ".join(repr(token[:20]) for token, _ in reported[:5])
        instead = ", or use --no-use-logits" if opening_of(prompt).endswith("[") else ""
        raise _unreadable(
            f"none of the identifiers {wanted} is among the {len(reported)} tokens that the server reports "
            f"({seen}, ...); check that the prompt template suits the model{instead}"
        )
    # Where a tokenizer cuts 12 into 1 and 2, the token 1 stands for 1 and for 10 to 19.
    pairs = zip(prompt.identifiers, scores, strict=True)
    long = [score for identifier, score in pairs if len(identifier) > 1 and identifier.isdigit()]
    if long and all(map(math.isinf, long)):
        raise _unreadable(
            "none of the identifiers above 9 is among the tokens that the server reports, so its model seems to write "
            "them as two tokens; use --use-alpha, --window-size 9, or --no-use-logits"
        )


def _are_words(identifiers: Sequence[str]) -> bool:
    return all(len(identifier) > 1 and identifier.isalpha() for identifier in identifiers)


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf


def _unreadable(message: str) -> ServerProblem:
    return ServerProblem(message, is_retryable=False)

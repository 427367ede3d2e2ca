"""Scores of identifiers from the log-probabilities that a server reports for the first token of its answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rankllm_infer.engines.base import Prompt
from rankllm_infer.engines.openai.problems import ServerProblem, incomplete

_BLANKS = (" ", "▁", "Ġ")
"""How servers write a token's leading space: as it is, or as the tokenizer's symbol for it."""

_SAME = 1e-3
"""Log-probabilities this close belong to the same token: servers compute the two reports of it in different ways."""
_UNREPORTED = -9999.0
"""Value that OpenAI and vLLM report for "very unlikely", because JSON cannot represent -inf."""


def first_token_scores(prompt: Prompt, choice: Mapping[str, object]) -> tuple[float, ...]:
    """Return one log-probability per identifier, in prompt order.

    choice: one of a chat completion's choices. Raises ServerProblem if it contains no reliable log-probabilities.
    """
    sampled, reported = _first_token(choice, prompt)
    opening = opening_of(prompt)
    if opening.endswith("[") and sampled.lstrip("".join(_BLANKS)).startswith("["):
        raise _unreadable(
            f"the server started a new answer instead of continuing {opening[-20:]!r}, so it ignores "
            f"continue_final_message{way_out(prompt)}"
        )
    scores = identifier_scores(prompt.identifiers, reported)
    _check_reported(prompt, scores, reported)
    return scores


def identifier_scores(identifiers: Sequence[str], reported: Sequence[tuple[str, float]]) -> tuple[float, ...]:
    """Return one log-probability per identifier, in order; -inf if no token with that text was reported.

    reported: text and log-probability of each token. For words (yes, no), the probabilities of all spellings are added:
    any case, surrounding spaces. Other identifiers (A, 12) must match exactly except for a leading space, and the most
    likely of several tokens with the same text counts.

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
    """Return the start of the assistant turn that the model is to continue; empty if there is none."""
    last = prompt.messages[-1] if prompt.messages else None
    return last.content if last is not None and last.role == "assistant" else ""


def way_out(prompt: Prompt) -> str:
    """Return advice for a server that cannot be read this way, to end a message with."""
    if prompt.read == "text":
        return ""
    if not opening_of(prompt).endswith("["):
        method = "pointwise scoring" if _are_words(prompt.identifiers) else "pairwise comparison"
        return f"; {method} is not possible with this server; use another server, or --engine transformers"
    return "; FIRST is not possible with this server; use --no-use-logits"


def _first_token(choice: Mapping[str, object], prompt: Prompt) -> tuple[str, list[tuple[str, float]]]:
    """Return the first token's text, and the most likely tokens at its position with their log-probabilities."""
    logprobs = choice.get("logprobs")
    positions = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(positions, list) or not positions:
        raise _unreadable(f"the server returned no log-probabilities{way_out(prompt)}")
    sampled = positions[0]
    likeliest = sampled.get("top_logprobs") or [] if isinstance(sampled, dict) else None
    if not isinstance(likeliest, list):
        raise incomplete("`top_logprobs`")
    first = _token(sampled)
    return first[0], _each_once([*(_token(entry) for entry in likeliest), first])


def _each_once(reported: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Remove repeated tokens. The sampled token is usually reported twice, possibly with different last digits.

    Two different tokens with the same text (with and without a space that the server does not show) differ in
    probability.
    """
    kept: list[tuple[str, float]] = []
    for token, logprob in reported:
        if not any(token == other and math.isclose(logprob, known, abs_tol=_SAME) for other, known in kept):
            kept.append((token, logprob))
    return kept


def _token(entry: object) -> tuple[str, float]:
    if isinstance(entry, dict):
        token, logprob = entry.get("token"), entry.get("logprob")
        # Rounding may put the most likely token slightly above 0. NaN fails both comparisons.
        if isinstance(token, str) and type(logprob) in (int, float) and -1e9 < logprob < 0.01:
            return token, float(logprob) if logprob > _UNREPORTED else -math.inf
        if isinstance(token, str) and logprob == -math.inf:
            return token, -math.inf
    raise incomplete("`token` as text and `logprob` as a number")


def _check_reported(prompt: Prompt, scores: Sequence[float], reported: Sequence[tuple[str, float]]) -> None:
    """Raise ServerProblem if the scores carry no information or are misleading."""
    if all(map(math.isinf, scores)):
        wanted = ", ".join(prompt.identifiers[:3]) + (", ..." if len(prompt.identifiers) > 3 else "")
        seen = ", ".join(repr(token[:20]) for token, _ in reported[:5])
        instead = ", or use --no-use-logits" if opening_of(prompt).endswith("[") else ""
        raise _unreadable(
            f"none of the identifiers {wanted} is among the {len(reported)} tokens reported by the server "
            f"({seen}, ...); check that the prompt template fits the model{instead}"
        )
    # If a tokenizer splits 12 into 1 and 2, the token 1 stands for 1 and for 10 to 19.
    pairs = zip(prompt.identifiers, scores, strict=True)
    long = [score for identifier, score in pairs if len(identifier) > 1 and identifier.isdigit()]
    if long and all(map(math.isinf, long)):
        raise _unreadable(
            "none of the identifiers above 9 is among the tokens reported by the server, so its model seems to write "
            "them as two tokens; use --use-alpha, --window-size 9, or --no-use-logits"
        )


def _are_words(identifiers: Sequence[str]) -> bool:
    return all(len(identifier) > 1 and identifier.isalpha() for identifier in identifiers)


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf


def _unreadable(message: str) -> ServerProblem:
    return ServerProblem(message, is_retryable=False)

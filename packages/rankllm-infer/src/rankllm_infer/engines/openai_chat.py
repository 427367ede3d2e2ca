"""A prompt as the body of a chat completion request, and the server's reply as an answer. Pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rankllm_core.tokens import clean
from rankllm_core.types import Usage

from rankllm_infer.engines import Answer, EngineError, Prompt
from rankllm_infer.engines.control_tokens import safe_content
from rankllm_infer.engines.openai_options import OpenAIOptions
from rankllm_infer.engines.openai_problems import ServerProblem, error_text, one_line

_CONTINUE = {"add_generation_prompt": False, "continue_final_message": True}
_REFUSED = (400, 422)
_BLANKS = (" ", "▁", "Ġ")
"""How servers write the blank that a token begins with: as it is, or as the tokenizer's own sign for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """Which optional parts of a request the server takes. Learned from its refusals, for the rest of the run."""

    length_parameter: str = "max_tokens"
    """Newer OpenAI models only take `max_completion_tokens`, most other servers only `max_tokens`."""
    takes_temperature: bool = True
    """OpenAI's reasoning models take no temperature."""
    takes_template_kwargs: bool = True
    """OpenAI and Mistral refuse `chat_template_kwargs`."""


def request_body(prompt: Prompt, options: OpenAIOptions, dialect: Dialect) -> dict[str, object]:
    """The JSON body of the request. A last turn of the assistant is an opening that the model continues."""
    body: dict[str, object] = {
        "model": options.model,
        "messages": [{"role": m.role, "content": clean(safe_content(m.spans))} for m in prompt.messages],
    }
    if dialect.takes_temperature:
        body["temperature"] = 0
    if dialect.takes_template_kwargs and options.chat_template_kwargs:
        body["chat_template_kwargs"] = dict(options.chat_template_kwargs)
    if _opening(prompt):
        body |= _CONTINUE
    if prompt.read == "first-token":
        body |= {dialect.length_parameter: 1, "logprobs": True, "top_logprobs": options.top_logprobs}
    elif prompt.max_new_tokens:
        body[dialect.length_parameter] = prompt.max_new_tokens
    return body


def without_refused(dialect: Dialect, problem: ServerProblem) -> Dialect:
    """The dialect without what the server refused, as its message says; the same one where that is nothing optional."""
    if problem.status not in _REFUSED:
        return dialect
    said = problem.message
    if "max_completion_tokens" in said and re.search(r"not supported|unsupported|instead", said, re.IGNORECASE):
        return replace(dialect, length_parameter="max_completion_tokens")
    if re.search(r"\bchat_template(_kwargs)?\b", said):
        return replace(dialect, takes_template_kwargs=False)
    if re.search(r"\btemperature\b", said):
        return replace(dialect, takes_temperature=False)
    return dialect


def explained(problem: ServerProblem, prompt: Prompt) -> ServerProblem:
    """The problem, with what to do about it where the server refused a way of reading."""
    if problem.is_retryable:
        return problem
    said = problem.message
    if re.search(r"continue_final_message|add_generation_prompt", said) and _opening(prompt):
        reason = "the server cannot continue an answer that has been begun"
    elif "logprobs" in said and prompt.read == "first-token":
        reason = f"the server does not give the log-probabilities asked for{_way_out(prompt)}"
        return ServerProblem(f"{said}; {reason}", status=None, is_retryable=False)
    else:
        return problem
    return ServerProblem(f"{said}; {reason}{_way_out(prompt)}", status=None, is_retryable=False)


def read_answer(prompt: Prompt, reply: Mapping[str, object], options: OpenAIOptions) -> Answer:
    """The answer in a reply.

    Raises ServerProblem where the reply is not whole, EngineError where it is and yet tells nothing that can be read.
    """
    choice = _choice(reply, options)
    if prompt.read == "text":
        return Answer(text=_text(choice), usage=_usage(reply))
    sampled, reported = _first_token(choice, prompt)
    opening = _opening(prompt)
    if opening.endswith("[") and sampled.lstrip("".join(_BLANKS)).startswith("["):
        raise EngineError(
            f"the server began its answer anew instead of continuing {opening!r}, so it knows no "
            f"continue_final_message{_way_out(prompt)}"
        )
    scores = identifier_scores(prompt.identifiers, reported)
    _check_scores(prompt, scores, reported)
    return Answer(scores=scores, usage=_usage(reply))


def identifier_scores(identifiers: Sequence[str], reported: Sequence[tuple[str, float]]) -> tuple[float, ...]:
    """One log-probability an identifier, in their order; -inf where no token of that text is reported.

    reported: text and log-probability of each token. Words (yes, no) are the sum of all their spellings: any case, blanks
    around. Other identifiers (A, 12) are spelt as they are, with at most one blank before, and the likeliest of several
    tokens of the same text counts. Source: castorini/rank_llm 94d8c51 (reference sections 3.6 and 3.10).
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


def _check_scores(prompt: Prompt, scores: Sequence[float], reported: Sequence[tuple[str, float]]) -> None:
    """Raises EngineError where the scores say nothing, or something else than they seem to."""
    if all(math.isinf(score) for score in scores):
        seen = ", ".join(repr(token) for token, _ in reported[:5])
        wanted = ", ".join(prompt.identifiers[:3]) + (", ..." if len(prompt.identifiers) > 3 else "")
        raise EngineError(
            f"none of the identifiers {wanted} is among the {len(reported)} likeliest tokens ({seen})"
            f"{_way_out(prompt)}, or check that the prompt template suits the model"
        )
    # Where a tokenizer cuts 12 into 1 and 2, the token 1 stands for 1 and for 10 to 19.
    long = [score for name, score in zip(prompt.identifiers, scores, strict=True) if len(name) > 1 and name.isdigit()]
    if long and all(math.isinf(score) for score in long):
        raise EngineError(
            "none of the identifiers above 9 is among the likeliest tokens, so the model seems to write them as two "
            "tokens; use --use-alpha, --window-size 9, or --no-use-logits"
        )


def _first_token(choice: Mapping[str, object], prompt: Prompt) -> tuple[str, list[tuple[str, float]]]:
    """The first token's text, and the likeliest tokens in its place with their log-probabilities."""
    logprobs = choice.get("logprobs")
    positions = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(positions, list) or not positions:
        raise EngineError(f"the server gave no log-probabilities{_way_out(prompt)}")
    try:
        sampled = (positions[0]["token"], positions[0]["logprob"])
        reported = [(entry["token"], entry["logprob"]) for entry in positions[0].get("top_logprobs") or ()]
    except (KeyError, TypeError, AttributeError):
        raise _not_whole("log-probabilities with `token`, `logprob` and `top_logprobs`") from None
    if sampled not in reported:
        reported.append(sampled)
    if not all(isinstance(token, str) and _is_logprob(value) for token, value in reported):
        raise _not_whole("tokens as text and log-probabilities as numbers")
    return sampled[0], reported


def _is_logprob(value: object) -> bool:
    # Rounding may push the likeliest token a little above 0.
    return isinstance(value, int | float) and not isinstance(value, bool) and value < 0.01


def _choice(reply: Mapping[str, object], options: OpenAIOptions) -> Mapping[str, object]:
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        said = one_line(error_text(reply), options)
        raise ServerProblem(said, is_retryable=True) if said else _not_whole("`choices`")
    choice = choices[0]
    if choice.get("finish_reason") in ("error", "abort"):
        raise ServerProblem("the server broke off its answer", is_retryable=True)
    if choice.get("finish_reason") == "content_filter":
        raise EngineError("the server's content filter kept the answer back")
    return choice


def _text(choice: Mapping[str, object]) -> str:
    message = choice.get("message")
    if not isinstance(message, dict):
        raise _not_whole("`message`")
    # Some servers leave out an empty `content`, or set it to null.
    content = message.get("content") or ""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        content = "".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str):
        raise _not_whole("`content` as text")
    return content


def _usage(reply: Mapping[str, object]) -> Usage:
    """What the server counted; zeros where it did not."""
    counts = reply.get("usage")
    if not isinstance(counts, dict):
        counts = {}
    tokens = [counts.get(name) for name in ("prompt_tokens", "completion_tokens")]
    read, written = (count if isinstance(count, int) else 0 for count in tokens)
    return Usage(calls=1, prompt_tokens=read, completion_tokens=written)


def _opening(prompt: Prompt) -> str:
    """The beginning of the assistant's turn that the model is to continue; empty where there is none."""
    last = prompt.messages[-1] if prompt.messages else None
    return last.content if last is not None and last.role == "assistant" else ""


def _way_out(prompt: Prompt) -> str:
    if prompt.read == "text":
        return ""
    if _are_words(prompt.identifiers):
        return "; scoring passages needs them: use a server that gives them (vLLM, SGLang), or --engine transformers"
    return "; FIRST is not possible over it: use --no-use-logits"


def _are_words(identifiers: Sequence[str]) -> bool:
    return all(len(identifier) > 1 and identifier.isalpha() for identifier in identifiers)


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf


def _not_whole(expected: str) -> ServerProblem:
    return ServerProblem(f"the reply is not whole: expected {expected}", is_retryable=True)

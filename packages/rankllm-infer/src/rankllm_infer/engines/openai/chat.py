"""Conversion of prompts to chat completion requests, and of replies to answers. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rankllm_core.prompts.tokens import clean
from rankllm_core.types import Usage
from rankllm_infer.engines.base import Answer, Prompt
from rankllm_infer.engines.openai.control_tokens import safe_content
from rankllm_infer.engines.openai.logprobs import first_token_scores, opening_of, way_out
from rankllm_infer.engines.openai.problems import ServerProblem, error_text, incomplete, one_line
from rankllm_infer.engines.openai.reply import MAX_ANSWER_CHARACTERS, count_of
from rankllm_infer.engines.openai.secrets import without_secrets
from rankllm_infer.engines.openai.settings import OpenAISettings

_CONTINUE: Mapping[str, object] = {"add_generation_prompt": False, "continue_final_message": True}
"""Extra parameters of vLLM and SGLang that leave the last turn open for the model to continue."""

_REFUSED = (400, 422)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """Optional parts of a request that the server accepts, learned from its refusals for the rest of the run."""

    length_parameter: str = "max_tokens"
    """Newer OpenAI models only accept `max_completion_tokens`, most other servers only `max_tokens`."""
    takes_temperature: bool = True
    """OpenAI's reasoning models do not accept a temperature."""
    takes_template_kwargs: bool = True
    """OpenAI and Mistral refuse `chat_template_kwargs`."""


def request_body(prompt: Prompt, options: OpenAISettings, dialect: Dialect) -> dict[str, object]:
    """Build the JSON body of the request. A final assistant turn is an opening that the model continues."""
    body: dict[str, object] = {
        "model": options.model,
        "messages": [{"role": m.role, "content": clean(safe_content(m.spans))} for m in prompt.messages],
    }
    if dialect.takes_temperature:
        body["temperature"] = 0
    if dialect.takes_template_kwargs and options.chat_template_kwargs:
        body["chat_template_kwargs"] = dict(options.chat_template_kwargs)
    if opening_of(prompt):
        body |= _CONTINUE
    if prompt.read == "first-token":
        body |= {dialect.length_parameter: 1, "logprobs": True, "top_logprobs": options.top_logprobs}
    elif prompt.max_new_tokens:
        body[dialect.length_parameter] = prompt.max_new_tokens
    return body


def without_refused(dialect: Dialect, problem: ServerProblem) -> Dialect:
    """Return the dialect without the optional part that the server's message refuses; unchanged if there is none."""
    said = problem.message
    if problem.status not in _REFUSED:
        return dialect
    # vLLM mentions both parameters if the number is too large, which is not a refusal.
    if dialect.length_parameter == "max_tokens" and re.search(r"max_completion_tokens.{0,3} instead", said):
        return replace(dialect, length_parameter="max_completion_tokens")
    if dialect.length_parameter == "max_tokens" and re.search(r"unsupported.{0,20}\bmax_tokens\b", said, re.IGNORECASE):
        return replace(dialect, length_parameter="max_completion_tokens")
    if re.search(r"\bchat_template(_kwargs)?\b", said):
        return replace(dialect, takes_template_kwargs=False)
    if re.search(r"\btemperature\b", said):
        return replace(dialect, takes_temperature=False)
    return dialect


def explained(problem: ServerProblem, prompt: Prompt) -> ServerProblem:
    """Return the problem, with advice if the server refused something that reading the answer requires."""
    said = problem.message
    if problem.is_retryable:
        return problem
    if opening_of(prompt) and re.search(r"continue_final_message|add_generation_prompt", said):
        reason = "the server cannot continue a partial answer"
    elif prompt.read == "first-token" and "logprobs" in said:
        reason = "the server does not return the requested log-probabilities"
    else:
        return problem
    return ServerProblem(f"{said}; {reason}{way_out(prompt)}", is_retryable=False)


def read_answer(prompt: Prompt, reply: Mapping[str, object], options: OpenAISettings) -> Answer:
    """Parse a reply into an answer. Raises ServerProblem if the reply is incomplete or cannot be read as requested."""
    choice = _choice(reply, options)
    if prompt.read == "text":
        is_truncated = choice.get("finish_reason") == "length"
        return Answer(text=_text(choice, options), is_truncated=is_truncated, usage=_usage(reply))
    return Answer(scores=first_token_scores(prompt, choice), usage=_usage(reply))


def _choice(reply: Mapping[str, object], options: OpenAISettings) -> Mapping[str, object]:
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        # Some gateways put an upstream error into a reply with status 200.
        said = one_line(error_text(reply), options)
        raise ServerProblem(said, is_retryable=True) if said else incomplete("`choices`")
    reason = choices[0].get("finish_reason")
    if reason in ("error", "abort"):
        raise ServerProblem("the server aborted its answer", is_retryable=True)
    if reason == "content_filter":
        raise ServerProblem("the server's content filter blocked the answer", is_retryable=False)
    return choices[0]


def _text(choice: Mapping[str, object], settings: OpenAISettings) -> str:
    message = choice.get("message")
    if not isinstance(message, dict):
        raise incomplete("`message`")
    # Some servers omit an empty `content` or set it to null.
    content = message.get("content") or ""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        # The reply was redacted part by part, but a key may be split across parts.
        content = without_secrets("".join(part for part in parts if isinstance(part, str)), settings)
    if not isinstance(content, str):
        raise incomplete("`content` as text")
    if len(content) > MAX_ANSWER_CHARACTERS:
        raise ServerProblem(
            f"the answer has {len(content)} characters, expected at most {MAX_ANSWER_CHARACTERS}", is_retryable=False
        )
    return content


def _usage(reply: Mapping[str, object]) -> Usage:
    """Return the token counts reported by the server; zeros if it reports none."""
    counts = reply.get("usage")
    if not isinstance(counts, dict):
        counts = {}
    read, written = (count_of(counts.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    return Usage(calls=1, prompt_tokens=read, completion_tokens=written)

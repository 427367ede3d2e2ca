"""One prompt asked of an OpenAI-compatible server, without waiting between tries."""

from __future__ import annotations

import contextlib

from rankllm_core.prompts.template import Message, Span
from rankllm_infer.engines.base import Answer, EngineError, Prompt
from rankllm_infer.engines.openai.engine import OpenAIEngine, OpenAISettings


async def no_sleep(delay_s: float) -> None:
    """Try again at once."""


def ask(url: str, prompt: Prompt | None = None, **options) -> Answer | EngineError:
    """One prompt's outcome."""
    engine = OpenAIEngine(OpenAISettings(base_url=url, model="m", **{"max_retries": 0} | options), sleep=no_sleep)
    with contextlib.closing(engine):
        engine.submit(0, prompt or text_prompt())
        return engine.collect()[0][1]


def text_prompt() -> Prompt:
    return Prompt(text="x", read="text", messages=(Message("user", (Span("Rank."),)),), max_new_tokens=9)


def first_prompt(*identifiers: str) -> Prompt:
    return Prompt(text="x", read="first-token", identifiers=identifiers, messages=text_prompt().messages)

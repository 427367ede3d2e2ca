"""From messages to what an engine is given, and how many tokens that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rankllm_core.prompts.chat import ChatEncoder
from rankllm_core.prompts.template import Message, Span
from rankllm_infer.engines.openai.budget import estimate_text_tokens, estimate_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPrompt:
    """A prompt in the form an engine takes."""

    text: str
    n_tokens: int
    token_ids: tuple[int, ...] = ()
    """For engines that take ids; empty for chat servers."""
    messages: tuple[Message, ...] = ()
    """For chat servers; a last turn of role `assistant` is one that the model goes on with."""


class PromptWriter(Protocol):
    """Knows the model's tokenizer, or how to do without it."""

    def write(self, messages: Sequence[Message], *, opening: str = "") -> WrittenPrompt:
        """The prompt up to the model's turn, which begins with `opening`."""

    def count(self, text: str) -> int:
        """Tokens of a text on its own."""


class TokenPromptWriter:
    """Writes prompts with the model's own tokenizer."""

    def __init__(self, encoder: ChatEncoder) -> None:
        self._encoder = encoder
        self.safe = encoder.safe

    def write(self, messages: Sequence[Message], *, opening: str = "") -> WrittenPrompt:
        """The prompt with its ids."""
        prompt = self._encoder.encode(messages, opening=opening)
        return WrittenPrompt(text=prompt.text, token_ids=prompt.token_ids, n_tokens=len(prompt.token_ids))

    def count(self, text: str) -> int:
        """Tokens of a text on its own."""
        return len(self._encoder.safe.encode(text))


class MessagePromptWriter:
    """Writes prompts for a chat server, whose tokenizer is not known: tokens are estimated, on the safe side."""

    def write(self, messages: Sequence[Message], *, opening: str = "") -> WrittenPrompt:
        """The turns; an opening becomes a turn of the assistant, which the server is told to go on with."""
        if opening:
            messages = (*messages, Message("assistant", (Span(opening),)))
        return WrittenPrompt(
            text="\n".join(f"{message.role}: {message.content}" for message in messages),
            messages=tuple(messages),
            n_tokens=estimate_tokens(messages),
        )

    def count(self, text: str) -> int:
        """Tokens of a text on its own, estimated."""
        return estimate_text_tokens(text)

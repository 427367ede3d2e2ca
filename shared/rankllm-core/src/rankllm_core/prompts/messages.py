"""Chat messages whose untrusted text is marked."""

from __future__ import annotations

from dataclasses import dataclass, field

from rankllm_core.identifiers import Names


@dataclass(frozen=True, slots=True)
class Span:
    """A run of prompt text. Untrusted text comes from queries and passages: it must stay text for the tokenizer."""

    text: str
    untrusted: bool = False
    names: Names | None = field(default=None, compare=False)
    """Of untrusted text that may not hold them: what the prompt calls its passages."""
    position: int | None = field(default=None, compare=False)
    """Of a passage: its 0-based position in the window."""


@dataclass(frozen=True, slots=True)
class Message:
    """One chat turn."""

    role: str
    spans: tuple[Span, ...]

    @property
    def content(self) -> str:
        """The text of the turn."""
        return "".join(span.text for span in self.spans)

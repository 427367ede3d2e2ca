"""Templates that show one passage and ask how relevant it is.

Source: texttron/tevatron@0545746 examples/rankllama/data.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rankllm_core.config import one_of
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.template_text import Message, Span, check_placeholders, fill, given_fields


@dataclass(frozen=True, slots=True, kw_only=True)
class PointwiseTemplate:
    """A prompt that shows one passage and asks how relevant it is."""

    name: str
    layout: str
    """`segments`: query and passage tokenised apart; `joined`: one string; `yes-no`: a chat question; `pair`: the
    tokenizer's own format of two texts, for encoders."""
    query: str = ""
    """How the query is written (`segments`, `joined`); holds {query}."""
    passage: str = ""
    """How the passage is written (`segments`, `joined`); holds {title} and {text}."""
    body: str = ""
    """The user's turn (`yes-no`); holds {query} and {document}."""
    system_message: str | None = None
    instruction: str | None = None
    chat_layout: str | None = None
    answer_prefix: str = ""
    """Text that opens the answer, before the position where it is read (`yes-no`)."""
    positive: str = "yes"
    negative: str = "no"
    message_roles: str | None = None
    """`reranker`: instruction, query and document are turns of their own roles, as some servers expect."""

    method: ClassVar[str] = "pointwise"
    LAYOUTS: ClassVar[tuple[str, ...]] = ("segments", "joined", "yes-no", "pair")

    def __post_init__(self) -> None:
        where = f"template {self.name}"
        one_of(self.layout, self.LAYOUTS, where=f"{where}: layout")
        if self.layout == "pair":
            if texts := sorted(given_fields(self).keys() - {"name", "layout"}):
                raise ConfigError(f"{where}: {texts[0]} has no effect with the layout 'pair'; leave it out")
        elif self.layout != "yes-no":
            check_placeholders(self.query, {"query"}, optional=set(), where=f"{where}: query")
            check_placeholders(self.passage, {"text"}, optional={"title"}, where=f"{where}: passage")
        elif self.message_roles is not None:
            one_of(self.message_roles, ("reranker",), where=f"{where}: message_roles")
            if not self.instruction:
                raise ConfigError(f"{where}: message_roles: reranker needs an instruction")
        else:
            check_placeholders(self.body, {"query", "document"}, optional={"instruction"}, where=f"{where}: body")

    def render(self, query: str, document: str) -> tuple[Message, ...]:
        """The chat messages of one pair (`yes-no` only)."""
        asked, shown = Span(query, untrusted=True), Span(document, untrusted=True)
        if self.message_roles:
            return (
                Message("system", (Span(self.instruction or ""),)),
                Message("query", (asked,)),
                Message("document", (shown,)),
            )
        values: dict[str, str | float | Span] = {
            "query": asked,
            "document": shown,
            "instruction": self.instruction or "",
        }
        turn = Message("user", fill(self.body, values))
        return (Message("system", (Span(self.system_message),)), turn) if self.system_message else (turn,)

    def to_dict(self) -> dict[str, object]:
        """The template as it is written to a card or a file."""
        return {"method": self.method} | {k: v for k, v in given_fields(self).items() if k != "name"}

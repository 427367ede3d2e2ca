"""Templates that show one passage and ask how relevant it is.

Sources: texttron/tevatron@0545746 examples/rankllama/data.py; for other layouts, see each template.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from rankllm_core.config import check_keys, one_of, typed
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.template_text import Message, Span, check_placeholders, fill, given_fields, placeholder_list

_IN_TURNS = ("query", "document", "instruction")


@dataclass(frozen=True, slots=True, kw_only=True)
class PointwiseTemplate:
    """Prompt that shows one passage and asks how relevant it is."""

    name: str
    layout: str
    """`segments`: query and passage tokenized separately; `joined`: one string; `chat`: chat turns; `raw`: one string
    without turns; `pair`: the tokenizer's own format for two texts, for encoders. `yes-no` is an older name of
    `chat`."""
    query: str = ""
    """Format of the query, with {query}. In `chat` and `raw`: what replaces {query} in their texts."""
    instructed_query: str = ""
    """Format of the query with an instruction, with {query} and {instruction} (`chat` and `raw`)."""
    passage: str = ""
    """Format of the passage (`segments`, `joined`), with {title} and {text}."""
    body: str = ""
    """User turn (`chat`) or whole text (`raw`), with {query}, {document} and optionally {instruction}."""
    system_message: str | None = None
    """System turn. With `chat` it may contain the placeholders of `body`."""
    instruction: str | None = None
    """Default instruction."""
    chat_layout: str | None = None
    answer_prefix: str = ""
    """Start of the answer, before the position where it is read (`chat`)."""
    positive: str = "yes"
    negative: str = "no"
    """Token whose logit is subtracted from that of `positive`; empty: none."""
    message_roles: str | None = None
    """`reranker`: instruction, query and document are separate turns with their own roles, as some servers expect."""

    kind: ClassVar[str] = "pointwise"
    method: ClassVar[str] = kind
    LAYOUTS: ClassVar[tuple[str, ...]] = ("segments", "joined", "chat", "yes-no", "raw", "pair")

    def __post_init__(self) -> None:
        where = f"template {self.name}"
        one_of(self.layout, self.LAYOUTS, where=f"{where}: layout")
        if self.layout in ("segments", "joined"):
            check_placeholders(self.query, {"query"}, optional=set(), where=f"{where}: query")
            check_placeholders(self.passage, {"text"}, optional={"title"}, where=f"{where}: passage")
        elif self.message_roles is not None:
            one_of(self.message_roles, ("reranker",), where=f"{where}: message_roles")
            if not self.instruction:
                raise ConfigError(f"{where}: message_roles: reranker needs an instruction")
        elif self.layout == "yes-no":
            check_placeholders(self.body, {"query", "document"}, optional={"instruction"}, where=f"{where}: body")
        elif self.layout != "pair":
            self._check_turns(where)
        if self.instructed_query:
            names = {"query", "instruction"}
            check_placeholders(self.instructed_query, names, optional=set(), where=f"{where}: instructed_query")
        if self.layout in ("chat", "raw", "pair"):
            self._check_unused(where)

    def _check_turns(self, where: str) -> None:
        """Check that query and document occur exactly once, in any turn."""
        found: Counter[str] = Counter()
        for name, text in self._turns().items():
            check_placeholders(text, set(), optional=set(_IN_TURNS), where=f"{where}: {name}")
            found.update(placeholder_list(text))
        for name in ("query", "document"):
            if found[name] != 1:
                raise ConfigError(
                    f"{where}: expected the placeholder {{{name}}} exactly once, found it {found[name]} times"
                )
        if self.query:
            check_placeholders(self.query, {"query"}, optional=set(), where=f"{where}: query")

    def _check_unused(self, where: str) -> None:
        """Raise ConfigError for a text that this layout does not use; files of the older layouts may contain some."""
        unused = ["passage"]
        if not self.takes_instruction:
            unused.append("instruction")
        if not self.is_chat:
            unused += ["system_message", "chat_layout", "answer_prefix", "message_roles"]
        if self.layout == "pair":
            unused += ["body", "query", "instructed_query"]
        for name in unused:
            if getattr(self, name):
                raise ConfigError(f"{where}: {name}: has no effect with the layout {self.layout}; leave it out")

    def _turns(self) -> Mapping[str, str]:
        """Return the texts with placeholders, by field."""
        if self.layout == "chat" and self.system_message:
            return {"system_message": self.system_message, "body": self.body}
        return {"body": self.body}

    @property
    def is_chat(self) -> bool:
        """Whether it is written as chat turns."""
        return self.layout in ("chat", "yes-no")

    @property
    def is_text(self) -> bool:
        """Whether it is one text, with or without turns, that a language model continues."""
        return self.is_chat or self.layout == "raw"

    @property
    def takes_instruction(self) -> bool:
        """Whether it has a placeholder for an instruction."""
        if self.message_roles:
            return True
        if self.is_text and self.instructed_query:
            return True
        return self.is_text and any("instruction" in placeholder_list(text) for text in self._turns().values())

    def render(self, query: str, document: str, instruction: str | None = None) -> tuple[Message, ...]:
        """Return the turns of one pair (`chat`; for `raw`, one user turn). instruction: None for the template's own."""
        asked, shown = Span(query, untrusted=True), Span(document, untrusted=True)
        # The template's instruction is trusted, the request's is not.
        told = Span(self.instruction or "") if instruction is None else Span(instruction, untrusted=True)
        if self.message_roles:
            return (Message("system", (told,)), Message("query", (asked,)), Message("document", (shown,)))
        # Files with layout yes-no may contain a `query`, which was never used.
        plain = "" if self.layout == "yes-no" else self.query
        form = self.instructed_query if self.instructed_query and told.text else plain
        values: dict[str, str | float | Span | tuple[Span, ...]] = {"document": shown, "instruction": told}
        values["query"] = fill(form, {"query": asked, "instruction": told}) if form else asked
        turn = Message("user", fill(self.body, values))
        if not self.system_message:
            return (turn,)
        said = fill(self.system_message, values) if self.layout == "chat" else (Span(self.system_message),)
        return (Message("system", said), turn)

    def to_dict(self) -> dict[str, object]:
        """Return the template as written to a card or file."""
        return {"method": self.method} | {k: v for k, v in given_fields(self).items() if k != "name"}


def pointwise_template_from_dict(values: Mapping[str, object], *, name: str) -> PointwiseTemplate:
    """Build a pointwise template from YAML values. `name` is used in messages. Raises ConfigError."""
    where = f"template {name}"
    check_keys(values, {f.name for f in fields(PointwiseTemplate)} - {"name"} | {"method"}, where=where)
    strings = {k: str(typed(v, str, where=f"{where}: {k}")) for k, v in values.items() if k != "method"}
    # The originals' pointwise files have no layout key and call the passage {doc_content}.
    strings.setdefault("layout", "yes-no")
    for turn in ("system_message", "body") if strings["layout"] in ("chat", "raw") else ("body",):
        if turn in strings:
            strings[turn] = strings[turn].replace("{doc_content}", "{document}").replace("{passage}", "{document}")
    return PointwiseTemplate(name=name, **strings)

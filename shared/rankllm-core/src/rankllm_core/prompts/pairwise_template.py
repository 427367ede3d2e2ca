"""Templates that show two passages and ask which one is more relevant.

Sources: duoT5, arXiv:2101.05667; pairwise ranking prompting (PRP), arXiv:2306.17563.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from rankllm_core.config import check_keys, one_of, typed
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.template_text import Message, Span, check_placeholders, fill, given_fields, placeholder_list

_PLACEHOLDERS = ("query", "passage_a", "passage_b")
_OTHER_NAMES = {"{doc1}": "{passage_a}", "{doc2}": "{passage_b}"}
"""Placeholder names of castorini/rank_llm@1b2b94a src/rank_llm/rerank/prompt_templates/duot5_template.yaml."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairwiseTemplate:
    """Prompt that shows two passages and asks which one is more relevant."""

    name: str
    body: str
    """User turn (`chat`) or whole text (`raw`), with {query}, {passage_a} and {passage_b}, each exactly once."""
    layout: str = "chat"
    """`chat`: chat turns; `raw`: one string without turns."""
    system_message: str | None = None
    chat_layout: str | None = None
    answer_prefix: str = ""
    """Start of the answer, before the position where it is read (`chat`)."""
    first: str = "A"
    """Token of the answer "the first passage", including a leading space if it has one."""
    second: str = "B"
    """Token of the answer "the second passage"."""

    kind: ClassVar[str] = "pairwise"
    method: ClassVar[str] = kind
    LAYOUTS: ClassVar[tuple[str, ...]] = ("chat", "raw")

    def __post_init__(self) -> None:
        where = f"template {self.name}"
        one_of(self.layout, self.LAYOUTS, where=f"{where}: layout")
        check_placeholders(self.body, set(_PLACEHOLDERS), optional=set(), where=f"{where}: body")
        for name, times in Counter(placeholder_list(self.body)).items():
            if times != 1:
                raise ConfigError(
                    f"{where}: body: expected the placeholder {{{name}}} exactly once, found it {times} times"
                )
        if not self.first.strip() or not self.second.strip() or self.first == self.second:
            raise ConfigError(
                f"{where}: first and second: expected two different tokens, found {self.first!r} and {self.second!r}"
            )
        if self.layout == "raw":
            for name in ("system_message", "chat_layout", "answer_prefix"):
                if getattr(self, name):
                    raise ConfigError(f"{where}: {name}: has no effect with the layout raw; leave it out")

    @property
    def is_chat(self) -> bool:
        """Whether it is written as chat turns."""
        return self.layout == "chat"

    @property
    def is_text(self) -> bool:
        """Whether a language model continues it; always true, since its answer is a token."""
        return True

    def render(self, query: str, passage_a: str, passage_b: str) -> tuple[Message, ...]:
        """Return the turns that compare two passages; for `raw`, one user turn. All three texts are untrusted."""
        values = zip(_PLACEHOLDERS, (query, passage_a, passage_b), strict=True)
        turn = Message("user", fill(self.body, {name: Span(text, untrusted=True) for name, text in values}))
        return (Message("system", (Span(self.system_message),)), turn) if self.system_message else (turn,)

    def to_dict(self) -> dict[str, object]:
        """Return the template as written to a card or file."""
        return {"method": self.method} | {k: v for k, v in given_fields(self).items() if k != "name"}


def pairwise_template_from_dict(values: Mapping[str, object], *, name: str) -> PairwiseTemplate:
    """Build a pairwise template from YAML values. `name` is used in messages. Raises ConfigError."""
    where = f"template {name}"
    check_keys(values, {f.name for f in fields(PairwiseTemplate)} - {"name"} | {"method"}, where=where)
    texts = {k: str(typed(v, str, where=f"{where}: {k}")) for k, v in values.items() if k != "method"}
    if "body" not in texts:
        raise ConfigError(f"{where}: body: missing, expected a text with {{query}}, {{passage_a}} and {{passage_b}}")
    for other, ours in _OTHER_NAMES.items():
        texts["body"] = texts["body"].replace(other, ours)
    return PairwiseTemplate(name=name, **texts)

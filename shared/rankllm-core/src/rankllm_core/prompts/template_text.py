"""Texts of a template: messages and their spans, placeholders, and guesses from the wording.

Placeholders (`{query}`, `{rank}`, `{score:.1f}`) are checked when a template is read and filled in when a prompt is
written. Guesses are for files of other projects, which declare nothing about the answer; bundled templates do, and a
test compares each declaration with the guess.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rankllm_core.errors import ConfigError
from rankllm_core.types import CHAIN, AnswerForm, IdentifierKind, Names

ANSWER_FORMS = {
    "chain": CHAIN,
    "rankstart": AnswerForm(opening="[rankstart] [", link="] > [", closing="] [rankend]"),
    "passages": AnswerForm(opening="[PASSAGE", link=", PASSAGE", closing="]"),
}
"""Name -> answer format around the identifiers: `[2] > [1]`, APEER's, LRL's."""

_FORMATTED_NAMES = ("score", "rank", "num")
_FORMAT_SPEC = re.compile(r"(?:[^{}]?[<>^])?[-+ ]?0?[0-9]{0,3}[,_]?(?:\.[0-9]{1,2})?[a-zA-Z%]?")
"""Python's format specification, with limited widths."""
_NUMERIC_PHRASES = ("numerical identifier", "number identifier", "[2] > [1]", "[1] > [2]", "PASSAGE2")
_ALPHA_PHRASES = ("alphabetical identifier", "[B] > [A]")


@dataclass(frozen=True, slots=True)
class Span:
    """Run of prompt text. Untrusted text comes from queries and passages and must be tokenized as plain text."""

    text: str
    untrusted: bool = False
    names: Names | None = field(default=None, compare=False)
    """Identifiers that this untrusted text must not imitate."""
    position: int | None = field(default=None, compare=False)
    """0-based index in the window, for passages."""


@dataclass(frozen=True, slots=True)
class Message:
    """Chat turn."""

    role: str
    spans: tuple[Span, ...]

    @property
    def content(self) -> str:
        """Text of the turn."""
        return "".join(span.text for span in self.spans)


def fill(text: str | None, values: Mapping[str, str | float | Span | tuple[Span, ...]]) -> tuple[Span, ...]:
    """Format like `str.format`, keeping untrusted text separate from the template's. values: some may be filled
    texts."""
    spans: list[Span] = []
    for literal, name, spec, _ in string.Formatter().parse(text or ""):
        if literal:
            spans.append(Span(literal))
        if name is not None:
            value = values[name]
            if isinstance(value, Span):
                spans.append(value)
                continue
            if isinstance(value, tuple):
                spans.extend(value)
                continue
            try:
                spans.append(Span(_formatted(value, spec or "")))
            except ValueError as error:
                raise ConfigError(
                    f"template: the placeholder {{{name}:{spec}}} cannot format {value!r}: {error}"
                ) from None
    return tuple(spans)


def placeholders(text: str) -> set[str]:
    """Return the names in braces. Raises ConfigError for an unmatched brace."""
    return set(placeholder_list(text))


def placeholder_list(text: str) -> list[str]:
    """Return the names in braces, in order. Raises ConfigError for an unmatched brace."""
    return [name for _, name, _, _ in _parsed(text) if name is not None]


def check_placeholders(text: str | None, required: set[str], *, optional: set[str], where: str) -> None:
    """Raise ConfigError unless a template's text contains the required placeholders and otherwise only optional ones.

    Scores, identifiers and counts may have a format; conversions, attributes and indices are not allowed.
    """
    if text is None:
        return
    found = placeholders(text)
    if unknown := found - required - optional:
        allowed = ", ".join(f"{{{name}}}" for name in sorted(required | optional))
        raise ConfigError(f"{where}: unknown placeholder {{{sorted(unknown)[0]}}}; expected {allowed}")
    if missing := required - found:
        raise ConfigError(f"{where}: expected the placeholder {{{sorted(missing)[0]}}}, found {text[:60]!r}")

    for _, name, spec, conversion in _parsed(text):
        if name is not None and (spec or conversion):
            _check_format(name, spec or "", conversion, where=where)


def _parsed(text: str) -> list[tuple[str, str | None, str | None, str | None]]:
    """Return literal text, placeholder, format and conversion, in order. Raises ConfigError for an unmatched brace."""
    try:
        return list(string.Formatter().parse(text))
    except ValueError as error:
        raise ConfigError(f"template text {text[:60]!r}: {error}; write a literal brace twice") from None


def _check_format(name: str, spec: str, conversion: str | None, *, where: str) -> None:
    """Raise ConfigError unless the placeholder is a number or an identifier, and the format is valid for it."""
    shown = f"{{{name}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}"
    if conversion:
        raise ConfigError(f"{where}: the placeholder {shown}: expected no conversion; write {{{name}}}")
    if name not in _FORMATTED_NAMES:
        raise ConfigError(f"{where}: the placeholder {shown}: only score, rank and num take a format; write {{{name}}}")
    try:
        if not _FORMAT_SPEC.fullmatch(spec):
            raise ValueError
        _formatted(1.5 if name == "score" else "1", spec)
    except ValueError:
        expected = "one such as .1f" if name == "score" else "one such as >4 or 02d"
        raise ConfigError(f"{where}: the placeholder {shown}: unknown format {spec!r}, expected {expected}") from None


def _formatted(value: str | float, spec: str) -> str:
    """Format a score, count or identifier. Raises ValueError if the format is not valid for it."""
    if not spec or value == "":
        return value if isinstance(value, str) else f"{value:.3f}"
    try:
        return format(value, spec)
    except ValueError:
        if isinstance(value, str) and value.isdecimal():
            return format(int(value), spec)
        raise


def given_fields(template: Any) -> dict[str, object]:
    """Return the fields of a template that differ from their defaults."""
    return {f.name: getattr(template, f.name) for f in fields(template) if getattr(template, f.name) != f.default}


def guess_identifiers(*parts: str | None) -> IdentifierKind | None:
    """Return the kind of identifiers that the parts of a prompt mention; None if they mention none."""
    words = _joined(*parts)
    if any(name in words for name in _ALPHA_PHRASES):
        return "alpha"
    return "numeric" if any(name in words for name in _NUMERIC_PHRASES) else None


def guess_answer(body: str, *parts: str | None) -> str:
    """Return the name in `ANSWER_FORMS` of the answer that a prompt asks for."""
    if "PASSAGE{rank}" in body:
        return "passages"
    return "rankstart" if "[rankstart]" in _joined(*parts) else "chain"


def guess_reasoning(*parts: str | None) -> bool:
    """Whether a prompt asks the model to reason before it gives the ranking inside `<answer>`."""
    return "<answer>" in _joined(*parts)


def _joined(*parts: str | None) -> str:
    return " ".join(part for part in parts if part)

"""Finds the passages of a window that its prompt does not show, and those that it shows alike."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from rankllm_core.prompts.content import PromptFindings, find_same
from rankllm_core.prompts.template import Message
from rankllm_core.text import fix_text
from rankllm_infer.ranking.prompts import WrittenPrompt

_BEFORE = 12
"""Characters in front of a passage that are looked for with it: `[7] a` is in no prompt by chance, `a` is in each."""
_PART = 24
"""Characters of a part of a long passage; a template that changes its ends may leave the middle."""


@dataclass(frozen=True, slots=True)
class ShownWindow:
    """A window's prompt, and what was to be in it."""

    written: WrittenPrompt
    messages: tuple[Message, ...]

    @property
    def passages(self) -> tuple[str, ...]:
        """The passages as they were put in, shortened and made safe, by their positions."""
        spans = (span for message in self.messages for span in message.spans)
        return tuple({span.position: span.text for span in spans if span.position is not None}.values())

    @property
    def key(self) -> Hashable:
        """What stands for the prompt."""
        return self.written.token_ids or self.written.text


def find_in_window(
    window: ShownWindow, *, write: Callable[[Sequence[str]], Hashable], text_of: Callable[[int], str]
) -> PromptFindings:
    """Look at each passage of a window: its text is in the prompt, or another text would give another prompt.

    write: the key of the window with other passages in it; asked for only where a text is not found.
    text_of: the whole text of a passage by its position; asked for only where two are shown alike.
    """
    passages, text = window.passages, window.written.text
    shown = [position for position, passage in enumerate(passages) if passage and not passage.isspace()]
    are_distinct = len(set(passages)) == len(passages)
    if are_distinct and all(message.content in text for message in window.messages if message.role == "user"):
        return PromptFindings(n_prompts=len(shown))  # nearly always: what was said is there, word for word
    missing = _not_found(window, passages, shown)
    nothing = _without_effect(window.key, passages, missing, write) if missing else ()
    return PromptFindings(
        n_prompts=len(shown),
        nothing=nothing,
        same=find_same(passages, [position for position in shown if position not in nothing], text_of),
    )


def _not_found(window: ShownWindow, passages: Sequence[str], shown: Sequence[int]) -> list[int]:
    """The passages whose text is not in the prompt, one behind the other."""
    text, start = window.written.text, 0
    missing = []
    needles = _needles(window)
    for position in shown:
        needle = needles[position]
        found = text.find(needle, start)
        if found >= 0:
            start = found + len(needle)
        elif not _is_partly_in(passages[position], text):
            missing.append(position)
    return missing


def _needles(window: ShownWindow) -> dict[int, str]:
    """By position: the passage with what the template writes in front of it."""
    needles: dict[int, str] = {}
    for message in window.messages:
        before = ""
        for span in message.spans:
            if span.position is not None:
                needles.setdefault(span.position, before[-_BEFORE:].lstrip() + span.text)
                before = ""
            else:
                before += span.text
    return needles


def _is_partly_in(passage: str, text: str) -> bool:
    """Whether a long passage is there but for what a chat template, or repairing the whole prompt, has changed."""
    repaired = fix_text(passage)
    middle = max(0, (len(repaired) - _PART) // 2)
    parts = (repaired[:_PART], repaired[middle : middle + _PART], repaired[-_PART:])
    return len(repaired) >= _PART and any(part in text for part in parts)


def _without_effect(
    key: Hashable, passages: Sequence[str], missing: Sequence[int], write: Callable[[Sequence[str]], Hashable]
) -> tuple[int, ...]:
    """Those in whose place any other text would give the same prompt."""

    def has_no_effect(positions: Sequence[int]) -> bool:
        changed = list(passages)
        for position in positions:
            changed[position] = "a" if changed[position].startswith("0") else "0"
        return write(changed) == key

    if has_no_effect(missing):  # one more prompt for the whole window, where the template drops all of it
        return tuple(missing)
    return tuple(position for position in missing if has_no_effect([position])) if len(missing) > 1 else ()

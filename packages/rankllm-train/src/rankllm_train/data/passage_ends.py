"""Find where a passage of a listwise prompt ends, from the text that the template writes after each or the last one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from rankllm_core.prompts.template import ListwiseTemplate, load_template, template_names

_VALUES = {
    **dict.fromkeys(("query", "candidate", "score"), ".*?"),
    "num": r"\d+",
    "psg_ids": r"\[.*?\]",
    "rank": "(?:1|A)",
}
"""Pattern of each placeholder's value; for `rank`, of the first identifier."""
_ORIGINALS = re.compile(r"^Search Query: ", re.MULTILINE)
"""Start of the instruction in the original projects' prompts."""


def last_passage_end(prompt: str, start: int, template: ListwiseTemplate | None = None) -> int:
    """Return the end of the last passage's text, without the line break after it.

    start: where that text starts. The instruction after it is the suffix of the template, or of a bundled one, or
    starts at the last line beginning with `Search Query: `. If none of these is found, the passage is a single line.
    """
    patterns = (*([_closing(template)] if template else []), *_shipped_closings())
    # Search from the last line up: a passage may contain words of the instruction, but not the other way round.
    line_starts = [match.end() for match in re.compile("\n").finditer(prompt, start)][::-1]
    for pattern in patterns:
        for line_start in line_starts if pattern else ():
            if pattern.match(prompt, line_start):
                return _without_breaks(prompt, start, line_start)
    for line_start in line_starts:
        if _ORIGINALS.match(prompt, line_start):
            return _without_breaks(prompt, start, line_start)
    return line_starts[-1] - 1 if line_starts else len(prompt)


def _without_breaks(prompt: str, start: int, end: int) -> int:
    return start + len(prompt[start:end].rstrip("\n"))


def text_end(prompt: str, start: int, end: int, template: ListwiseTemplate | None = None) -> int:
    """Return the end of the text of a passage starting at `start`, without what its template writes after each passage.

    end: where the next passage or the instruction starts. Line breaks before it do not belong to the text either.
    """
    end = _without_breaks(prompt, start, end)
    line_starts = [match.end() for match in re.compile("\n").finditer(prompt, start, end)][::-1]
    for pattern in (_tail(template),) if template else _shipped_tails():
        for line_start in line_starts if pattern else ():
            if pattern.fullmatch(prompt, line_start, end):
                return _without_breaks(prompt, start, line_start)
    return end


def as_pattern(text: str) -> str:
    """Return a regular expression for the text that a part of a template produces."""
    pattern = re.escape(text)
    for name, value in _VALUES.items():
        pattern = pattern.replace(re.escape("{" + name + "}"), value)
    return pattern


def _closing(template: ListwiseTemplate) -> re.Pattern[str] | None:
    suffix = (template.suffix or "").strip("\n")
    return re.compile(as_pattern(suffix) + r"\s*\Z", re.DOTALL) if suffix else None


def _tail(template: ListwiseTemplate) -> re.Pattern[str] | None:
    written = template.body.partition("{candidate}")[2].strip("\n")
    pattern = as_pattern(written.replace("{rank}", "RANK")).replace("RANK", r"(?:\d+|[A-Z])")
    return re.compile(pattern, re.DOTALL) if written else None


@cache
def _shipped_closings() -> tuple[re.Pattern[str], ...]:
    return _each_once(map(_closing, _shipped()))


@cache
def _shipped_tails() -> tuple[re.Pattern[str], ...]:
    return _each_once(map(_tail, _shipped()))


def _shipped() -> list[ListwiseTemplate]:
    templates = [load_template(name) for name in template_names()]
    return [
        template
        for template in templates
        if isinstance(template, ListwiseTemplate) and template.method == "singleturn_listwise"
    ]


def _each_once(patterns: Iterable[re.Pattern[str] | None]) -> tuple[re.Pattern[str], ...]:
    return tuple({pattern.pattern: pattern for pattern in patterns if pattern}.values())

"""Where a passage of a listwise prompt ends: at what the template writes behind each, or behind the last."""

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
"""What a placeholder may stand for; of identifiers, the first."""
_ORIGINALS = re.compile(r"^Search Query: ", re.MULTILINE)
"""How the instruction begins in the originals' prompts, whatever follows."""


def last_passage_end(prompt: str, start: int, template: ListwiseTemplate | None = None) -> int:
    """Where the text of the last passage ends, without the line break behind it.

    start: where that text begins. The instruction is the suffix of the template, or of a shipped one, or what follows
    the last line that begins with `Search Query: `. Where none of these is found, the passage is one line.
    """
    patterns = (*([_closing(template)] if template else []), *_shipped_closings())
    # From the last line up: a passage may hold words of the instruction, the instruction holds no passage.
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
    """Where the text of a passage ends that stands at `start`, without what its template writes behind each passage.

    end: where the next passage or the instruction begins. Line breaks before it are not part of the text either.
    """
    end = _without_breaks(prompt, start, end)
    line_starts = [match.end() for match in re.compile("\n").finditer(prompt, start, end)][::-1]
    for pattern in (_tail(template),) if template else _shipped_tails():
        for line_start in line_starts if pattern else ():
            if pattern.fullmatch(prompt, line_start, end):
                return _without_breaks(prompt, start, line_start)
    return end


def as_pattern(text: str) -> str:
    """A part of a template as a regular expression for what is written with it."""
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

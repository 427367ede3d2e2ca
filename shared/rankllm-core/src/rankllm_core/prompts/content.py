"""Detection of prompts that do not contain their passage, or are the same for different passages.

A long query can displace its passage, a chat template can drop the user's text, and truncation can make two passages
equal. A model still scores such prompts, so training and inference check for them where prompts are built.
Pure functions: a prompt is represented by any key (its ids, its text) that is only compared for equality.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

SHOWS_NOTHING = "prompt holds nothing of the passage"
"""Defect of a prompt that would be the same with any other passage."""
SHOWS_THE_SAME = "whose passage differs"
"""End of the defect of a passage that is shown exactly like a different one."""

Passage = tuple[str, str]
"""Title and text."""
WriteKey = Callable[[str, str], Hashable]
"""Returns the key of a prompt for a title and a text, everything else being equal."""

_PROBES = {True: ("0", "1"), False: ("a", "b")}
"""Passages to compare with: two digits and two letters, since tokenizers treat spaces before digits differently."""
_SLACK = 8
"""Tokens at the end of a truncated prompt that may be spaces before the passage."""
_CHARACTERS_A_TOKEN = 8
"""A passage truncated to n tokens shows at least n / 8 characters: up to 4 bytes each, plus spaces added by
tokenizers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFindings:
    """Problems with the prompts of one query, by 0-based index."""

    n_prompts: int = 0
    """Number of prompts whose passage is not blank."""
    nothing: tuple[int, ...] = ()
    """Prompts that contain nothing of their passage."""
    same: tuple[tuple[int, int], ...] = ()
    """(index, first index with the same prompt) for different passages."""

    @property
    def all_show_nothing(self) -> bool:
        """Whether no prompt contains anything of its passage."""
        return bool(self.nothing) and len(self.nothing) == self.n_prompts

    def defects(self, docids: Sequence[str]) -> tuple[str, ...]:
        """Return one line per problem, for users and for `count_findings`."""
        nothing = (f"docid {docids[position]!r}: {SHOWS_NOTHING}" for position in self.nothing)
        return (
            *nothing,
            *(
                f"docid {docids[position]!r}: shown exactly as docid {docids[first]!r}, {SHOWS_THE_SAME}"
                for position, first in self.same
            ),
        )


def find_in_prompts(keys: Sequence[Hashable], passages: Sequence[Passage], write: WriteKey) -> PromptFindings:
    """Check the prompts of one query's passages.

    keys: key of each prompt, as returned by `write`. write: called for one more prompt of the same query, and for up to
    four if a prompt seems to contain nothing of its passage.
    """
    shown = [position for position, passage in enumerate(passages) if not is_blank(passage)]
    if not shown:
        return PromptFindings()
    shows_nothing = nothing_check(write)
    nothing = [position for position in shown if shows_nothing(keys[position], passages[position])]
    others = sorted(set(range(len(keys))) - set(nothing))
    same = find_same(keys, others, lambda position: "\n".join(passages[position]))
    return PromptFindings(n_prompts=len(shown), nothing=tuple(nothing), same=same)


def nothing_check(write: WriteKey) -> Callable[[Hashable, Passage], bool]:
    """Return a check for one query's prompts: whether a prompt equals that of a blank or a differently starting
    passage."""
    blank = write("", "")
    probe = functools.cache(write)

    def shows_nothing(key: Hashable, passage: Passage) -> bool:
        if key == blank:
            return True
        if not (isinstance(key, tuple) and isinstance(blank, tuple) and key[:-_SLACK] == blank[: len(key) - _SLACK]):
            return False
        # Truncated between prefix and passage: the effect of spaces on the end of a prompt depends on the text.
        title, text = passage
        begins = (title.strip() or text.strip())[:1].lower()
        first, second = _PROBES[begins.isdigit()]
        other = second if begins == first else first
        return key == probe(other if title.strip() else "", other)

    return shows_nothing


def find_same(
    keys: Sequence[Hashable], positions: Iterable[int], text_of: Callable[[int], str]
) -> tuple[tuple[int, int], ...]:
    """Return (index, first index) of equal keys whose texts differ in more than whitespace. Copies are not a problem.

    text_of: returns the full text of a passage; called only for equal keys.
    """
    first: dict[Hashable, int] = {}
    same = []
    for position in positions:
        earlier = first.setdefault(keys[position], position)
        if earlier != position and text_of(earlier).split() != text_of(position).split():
            same.append((position, earlier))
    return tuple(same)


def may_look_alike(passages: Sequence[Passage], passage_tokens: int) -> list[int]:
    """Return the indices of passages that could have the same prompt as another, truncated to this many tokens.

    The others start differently, and need not be tokenized to tell them apart.
    """
    n_characters = max(1, passage_tokens // _CHARACTERS_A_TOKEN)
    beginnings = [" ".join(f"{title} {text}".split())[:n_characters] for title, text in passages]
    counts: dict[str, int] = {}
    for beginning in beginnings:
        counts[beginning] = counts.get(beginning, 0) + 1
    return [position for position, beginning in enumerate(beginnings) if counts[beginning] > 1]


def is_blank(passage: Passage) -> bool:
    """Whether the passage is empty or only whitespace."""
    return not (passage[0].strip() or passage[1].strip())


def count_findings(defects: Iterable[str]) -> tuple[int, int]:
    """Count the defects that report prompts without their passage, and passages shown like a different one."""
    nothing = same = 0
    for defect in defects:
        nothing += defect.endswith(SHOWS_NOTHING)
        same += defect.endswith(SHOWS_THE_SAME)
    return nothing, same

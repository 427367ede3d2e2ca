"""Finds prompts that do not show what they are about: nothing of their passage, or the same for different passages.

A long query can push its passage out, a chat template can drop the user's text, and a cut can leave two passages alike.
A model still gives such prompts a score. Training and inference look for them where prompts are built.
Pure functions: a prompt is known by whatever stands for it (its ids, its text), compared for equality alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

SHOWS_NOTHING = "prompt holds nothing of the passage"
"""What a defect says of a prompt that would be the same with any other passage."""
SHOWS_THE_SAME = "whose passage differs"
"""What a defect says at its end of a passage that is shown exactly as another one is."""

Passage = tuple[str, str]
"""Title and text."""
WriteKey = Callable[[str, str], Hashable]
"""What stands for the prompt of a title and a text, with everything else as it is."""

_PROBES = {True: ("0", "1"), False: ("a", "b")}
"""Passages to compare with: two digits, two letters. Tokenizers cut the blanks before a digit in another way."""
_SLACK = 8
"""Tokens at the end of a cut prompt that may be blanks before the passage."""
_CHARACTERS_A_TOKEN = 8
"""A passage cut at n tokens shows at least n / 8 characters: up to 4 bytes each, and blanks that a tokenizer adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFindings:
    """What is wrong with the prompts of one query, by their 0-based positions."""

    n_prompts: int = 0
    """Prompts whose passage is not blank."""
    nothing: tuple[int, ...] = ()
    """Those that hold nothing of it."""
    same: tuple[tuple[int, int], ...] = ()
    """(position, the first with the same prompt) where the passages differ."""

    @property
    def all_show_nothing(self) -> bool:
        """Whether no prompt holds anything of its passage."""
        return bool(self.nothing) and len(self.nothing) == self.n_prompts

    def defects(self, docids: Sequence[str]) -> tuple[str, ...]:
        """One line each, for people and for `count_findings`."""
        nothing = (f"docid {docids[position]!r}: {SHOWS_NOTHING}" for position in self.nothing)
        return (
            *nothing,
            *(
                f"docid {docids[position]!r}: shown exactly as docid {docids[first]!r}, {SHOWS_THE_SAME}"
                for position, first in self.same
            ),
        )


def find_in_prompts(keys: Sequence[Hashable], passages: Sequence[Passage], write: WriteKey) -> PromptFindings:
    """Look at the prompts of one query's passages.

    keys: what stands for each prompt, as `write` gives it. write: is asked for one more prompt of the same query, and
    for up to four where one looks as if it held nothing.
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
    """A check of one query's prompts: whether one is that of a blank passage, or of one that begins otherwise."""
    blank = write("", "")
    probe = functools.cache(write)

    def shows_nothing(key: Hashable, passage: Passage) -> bool:
        if key == blank:
            return True
        if not (isinstance(key, tuple) and isinstance(blank, tuple) and key[:-_SLACK] == blank[: len(key) - _SLACK]):
            return False
        # Cut between the prefix and the passage: what blanks make of a prompt's end differs from text to text.
        title, text = passage
        begins = (title.strip() or text.strip())[:1].lower()
        first, second = _PROBES[begins.isdigit()]
        other = second if begins == first else first
        return key == probe(other if title.strip() else "", other)

    return shows_nothing


def find_same(
    keys: Sequence[Hashable], positions: Iterable[int], text_of: Callable[[int], str]
) -> tuple[tuple[int, int], ...]:
    """(position, first position) of equal keys whose texts differ in more than blanks. Copies of a text are no fault.

    text_of: the whole text of a passage; asked for where keys are equal.
    """
    first: dict[Hashable, int] = {}
    same = []
    for position in positions:
        earlier = first.setdefault(keys[position], position)
        if earlier != position and text_of(earlier).split() != text_of(position).split():
            same.append((position, earlier))
    return tuple(same)


def may_look_alike(passages: Sequence[Passage], passage_tokens: int) -> list[int]:
    """Positions of the passages that could have the same prompt as another one, cut at so many tokens.

    Others begin differently, so that they need not be tokenised to be told apart.
    """
    n_characters = max(1, passage_tokens // _CHARACTERS_A_TOKEN)
    beginnings = [" ".join(f"{title} {text}".split())[:n_characters] for title, text in passages]
    counts: dict[str, int] = {}
    for beginning in beginnings:
        counts[beginning] = counts.get(beginning, 0) + 1
    return [position for position, beginning in enumerate(beginnings) if counts[beginning] > 1]


def is_blank(passage: Passage) -> bool:
    """Whether there is nothing that a prompt could show."""
    return not (passage[0].strip() or passage[1].strip())


def count_findings(defects: Iterable[str]) -> tuple[int, int]:
    """How many defects say that a prompt holds nothing of its passage, and that two passages are shown alike."""
    nothing = same = 0
    for defect in defects:
        nothing += defect.endswith(SHOWS_NOTHING)
        same += defect.endswith(SHOWS_THE_SAME)
    return nothing, same

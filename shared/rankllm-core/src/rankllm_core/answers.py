"""Reads what a listwise model answered: always a permutation, and an honest word on how it was read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from rankllm_core.answer_chains import Chain, find_chains, list_bare, rankings
from rankllm_core.answer_tokens import normalise, tokenize
from rankllm_core.identifiers import IdentifierKind
from rankllm_core.types import Status

MAX_DEFECTS_OF_A_SORT = 10
"""More missing, repeated, ... identifiers than this are counted, not listed."""

_THINK_OPEN = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_THINK_CLOSE = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_ANSWER_TAGS = (
    (re.compile(r"<answer>", re.IGNORECASE), re.compile(r"</answer>", re.IGNORECASE)),  # ReasonRank
    (re.compile(r"\[rankstart\]", re.IGNORECASE), re.compile(r"\[rankend\]", re.IGNORECASE)),  # APEER
)
_OTHER_KIND: Mapping[IdentifierKind, IdentifierKind] = {"numeric": "alpha", "alpha": "numeric"}
_WRONG_KIND: Mapping[IdentifierKind, str] = {
    "numeric": "no ranking: alphabetic identifiers where numeric ones were asked for",
    "alpha": "no ranking: numeric identifiers where alphabetic ones were asked for",
}
_CUT_OFF = "no ranking: the answer ends inside <think>"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAnswer:
    """A ranking, and how it was found."""

    order: tuple[int, ...]
    """0-based prompt positions, best first, each exactly once."""
    status: Status
    """`ok`, `repaired` or `fallback`, as `read_answer` says."""
    defects: tuple[str, ...]
    """What was wrong, for people. Empty exactly when the status is `ok`."""


def parse_permutation(text: str, labels: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The permutation in a model's answer, and what was wrong with it; `read_answer` says how it is read.

    Returns the 0-based positions of `labels`, best first, each exactly once, and the defects, such as `repeated [2]`.
    """
    answer = read_answer(text, labels)
    return answer.order, answer.defects


def read_answer(text: str, labels: Sequence[str]) -> ReadAnswer:
    """Read the ranking in a model's answer. Total: any text gives a permutation, in time linear in its length.

    labels: what the prompt called its passages, in prompt order: numbers or single letters A-Z.

    What is read:
    - Thinking is skipped: all up to the last `</think>`, and all after a `<think>` that is never closed, unless the text
      ends in `</answer>`. Where `<answer>` or `[rankstart]` is filled in, only what it holds is read.
    - Identifiers joined by `>` come first, then those in brackets or after a noun (`[2], [1]`, `Passage 2`), then bare lists
      (`2, 1, 3`). Beside the first two, a bare number or letter counts only where it touches a `>`; else it is prose.
    - Rankings that share no identifier are pieces of one. Of several, the one with most identifiers is taken, the last
      among equals. Repeats are dropped, the first stays; what is missing follows in prompt order.

    Status:
    - `ok`: every identifier once and nothing else from the first to the last of them. Text before and after is not read.
    - `repaired`: a ranking, but an identifier is missing, repeated, unknown, tied (`=`) or in lower case, words stand inside
      it, or another ranking in the text contradicts it.
    - `fallback`: no identifier of the prompt was ranked; the order is the prompt's.

    Raises ValueError when labels are neither distinct numbers nor distinct letters.
    """
    kind = _kind_of(labels)
    positions = {label: position for position, label in enumerate(labels)}
    if not positions:
        return ReadAnswer(order=(), status="ok", defects=())
    region, is_cut_off = _answer_region(normalise(text))
    best, others = _best_ranking(region, kind, positions)
    if best is None or not best.known:
        order = tuple(range(len(labels)))
        if is_cut_off:
            return ReadAnswer(order=order, status="fallback", defects=(_CUT_OFF,))
        if _is_other_kind(region, kind):
            return ReadAnswer(order=order, status="fallback", defects=(_WRONG_KIND[kind],))
        defects = _capped(_defects(best or Chain(names=[]), others, labels, region))
        return ReadAnswer(order=order, status="fallback", defects=defects)
    ranked = dict.fromkeys(positions[name] for name in _known_names(best))
    order = (*ranked, *(position for position in range(len(labels)) if position not in ranked))
    defects = _capped(_defects(best, others, labels, region))
    return ReadAnswer(order=order, status="repaired" if defects else "ok", defects=defects)


def _kind_of(labels: Sequence[str]) -> IdentifierKind:
    if len(set(labels)) == len(labels):
        if all(label.isascii() and label.isdecimal() and str(int(label)) == label for label in labels):
            return "numeric"
        if all(len(label) == 1 and label in ascii_uppercase for label in labels):
            return "alpha"
    raise ValueError(f"labels must be distinct numbers or distinct letters A-Z, got {list(labels)[:30]}")


def _answer_region(text: str) -> tuple[str, bool]:
    """The part of the text that is meant as the answer, and whether thinking that never ended was cut away."""
    text = _THINK_CLOSE.split(text)[-1]
    is_cut_off = False
    is_finished = text[-40:].rstrip().lower().endswith("</answer>")
    if not is_finished and (thinking := _THINK_OPEN.search(text)):
        text, is_cut_off = text[: thinking.start()], True
    for opening, closing in _ANSWER_TAGS:
        for part in reversed(opening.split(text)[1:]):
            inside = closing.split(part, maxsplit=1)[0]
            if inside.strip():
                return inside, is_cut_off
    return text, is_cut_off


def _best_ranking(
    region: str, kind: IdentifierKind, known: Mapping[str, int]
) -> tuple[Chain | None, Sequence[Chain]]:
    """The ranking to take, and the others that are as sure to be meant as rankings as it is."""
    tokens = tuple(tokenize(region, kind))
    chains = find_chains(tokens, known)
    by_class = [
        rankings(chain for chain in chains if (chain.is_joined, chain.is_marked) == wanted)
        for wanted in ((True, True), (False, True), (True, False))
    ]
    found = [ranking for group in by_class for ranking in group]
    if not any(ranking.known for ranking in found):
        found = list_bare(tokens, known) or found
    if not found:
        return None, ()
    # max() keeps the first of equals, so look from the end.
    best = max(reversed(found), key=lambda ranking: (bool(ranking.known), ranking.tier, len(ranking.known), ranking.is_joined))
    return best, [ranking for ranking in found if ranking is not best and ranking.tier == best.tier]


def _is_other_kind(region: str, kind: IdentifierKind) -> bool:
    """Whether the answer ranks by identifiers of the kind that was not asked for."""
    other = _OTHER_KIND[kind]
    known = dict.fromkeys(ascii_uppercase if other == "alpha" else map(str, range(1, 1000)), 0)
    chains = find_chains(tuple(tokenize(region, other)), known)
    return any(chain.tier and any(token.name in known and not token.is_lower for token in chain.names) for chain in chains)


def _known_names(ranking: Chain) -> Iterator[str]:
    return (token.name for token in ranking.names if token.kind == "name" and token.name in ranking.known)


def _defects(ranking: Chain, others: Sequence[Chain], labels: Sequence[str], region: str) -> Iterator[tuple[str, str]]:
    """Each defect as its sort and what it is about."""
    seen: set[str] = set()
    reported: set[tuple[str, str]] = set()
    for token in ranking.names:
        is_known = token.kind == "name" and token.name in ranking.known
        if not is_known:
            defect = ("unknown", f"[{_shown(token.name, 12)}]")
        elif token.name in seen:
            defect = ("repeated", f"[{token.name}]")
        elif token.is_lower:
            defect = ("lower-case", f"[{token.name.lower()}]")
        else:
            defect = None
        if is_known:
            seen.add(token.name)
        if defect and defect not in reported:
            reported.add(defect)
            yield defect
    for first, second in ranking.ties:
        yield "tied", f"[{_shown(first, 12)}] = [{_shown(second, 12)}]"
    for start, end in ranking.strays:
        yield "stray", f"'{_shown(region[start:end].strip(' >[]=,;*'), 40)}'"
    for other in others:
        names = list(dict.fromkeys(_known_names(other)))
        if _contradicts(names, ranking):
            yield "contradicting", " > ".join(f"[{name}]" for name in names[:5]) + (" > ..." if len(names) > 5 else "")
    for label in labels:
        if label not in seen:
            yield "missing", f"[{label}]"


def _contradicts(names: Sequence[str], ranking: Chain) -> bool:
    places = {name: place for place, name in enumerate(dict.fromkeys(_known_names(ranking)))}
    found = [places[name] for name in names if name in places]
    return any(first > second for first, second in zip(found, found[1:], strict=False))


def _capped(defects: Iterator[tuple[str, str]]) -> tuple[str, ...]:
    """The defects as text; of each sort the first few, then a count."""
    counts: dict[str, int] = {}
    order: list[str] = []
    for sort, about in defects:
        counts[sort] = counts.get(sort, 0) + 1
        if counts[sort] <= MAX_DEFECTS_OF_A_SORT:
            order.append(f"{sort} {about}")
    more = (f"{sort}: {count - MAX_DEFECTS_OF_A_SORT} more" for sort, count in counts.items() if count > MAX_DEFECTS_OF_A_SORT)
    return (*order, *more)


def _shown(text: str, length: int) -> str:
    """Text from a model, short and fit to print: no control characters, no lone surrogates."""
    text = " ".join(text[: 4 * length].split()) if len(text) > length else " ".join(text.split())
    short = text if len(text) <= length else text[: length - 1] + "…"
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in short)

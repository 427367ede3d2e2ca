"""Human-readable defects of a model's answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rankllm_core.answers.chains import Chain
from rankllm_core.answers.tokens import Token

MAX_DEFECTS_OF_A_SORT = 10
"""Further missing, repeated, ... identifiers are counted instead of listed."""

_NAME_LENGTH = 12
_EXCERPT_LENGTH = 40
_HARMLESS = " \t\r\n>[]=.,:;*|-"
"""Characters without meaning between two identifiers."""


def describe_defects(
    ranking: Chain, others: Sequence[Chain], *, tokens: Sequence[Token], labels: Sequence[str], text: str
) -> tuple[str, ...]:
    """Return the defects of a ranking in reading order, missing identifiers last.

    others: rankings of the same answer that were not used. tokens, text: the answer that they all come from.
    """
    listed: list[str] = []
    counts: dict[str, int] = {}
    for sort, about in _defects(ranking, others, tokens=tokens, labels=labels, text=text):
        counts[sort] = counts.get(sort, 0) + 1
        if counts[sort] <= MAX_DEFECTS_OF_A_SORT:
            listed.append(f"{sort} {about}")
    over = {sort: count - MAX_DEFECTS_OF_A_SORT for sort, count in counts.items() if count > MAX_DEFECTS_OF_A_SORT}
    return (*listed, *(f"{sort}: {count} more" for sort, count in over.items()))


def _defects(
    ranking: Chain, others: Sequence[Chain], *, tokens: Sequence[Token], labels: Sequence[str], text: str
) -> Iterator[tuple[str, str]]:
    """Yield each defect as its kind and its subject."""
    if ranking.is_reversed:
        yield "ascending", "order: joined by '<', read from the last to the first"
    yield from dict.fromkeys(_defects_of_names(ranking))
    for first, second in ranking.ties:
        yield "tied", f"[{_shown(first, _NAME_LENGTH)}] = [{_shown(second, _NAME_LENGTH)}]"
    for start, end in ranking.strays:
        if stray := text[start:end].strip(_HARMLESS):
            yield "stray", f"'{_shown(stray, _EXCERPT_LENGTH)}'"
    places = {name: place for place, name in enumerate(dict.fromkeys(ranking.known_names()))}
    for other in others:
        names = list(dict.fromkeys(other.known_names()))
        found = [places[name] for name in names if name in places]
        if found != sorted(found):
            yield "contradicting", " > ".join(f"[{name}]" for name in names[:5]) + (" > ..." if len(names) > 5 else "")
    if tokens and tokens[-1].kind == "unread":
        yield "unread", f"text after character {tokens[-1].start}: too long"
    for label in labels:
        if label not in places:
            yield "missing", f"[{label}]"


def _defects_of_names(ranking: Chain) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for token in ranking.names:
        if token.kind != "name" or token.name not in ranking.known:
            yield "unknown", f"[{_shown(token.name, _NAME_LENGTH)}]"
        elif token.name in seen:
            yield "repeated", f"[{token.name}]"
        else:
            seen.add(token.name)
            if token.is_lower:
                yield "lower-case", f"[{token.name.lower()}]"


def _shown(text: str, length: int) -> str:
    """Shorten text from a model for printing: one line, no control characters, no lone surrogates."""
    line = " ".join(text[: 4 * length].split())
    short = line if len(line) <= length else line[: length - 1] + "…"
    return "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in short)

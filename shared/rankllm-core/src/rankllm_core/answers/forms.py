"""Rankings in other forms than ordered identifiers: records, ranks next to identifiers, scores, plain `D3 > D1`.

Each is rewritten as identifiers in brackets, best first, before an answer is tokenized. If two readings are possible,
neither is used, and a defect describes what the answer contained.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise

from rankllm_core.answers.chains import find_chains
from rankllm_core.answers.claims import Claim, find_claims
from rankllm_core.answers.records import Records, find_records
from rankllm_core.answers.rows import AMBIGUOUS, Rows, read_rows
from rankllm_core.answers.tokens import NOUN, tokenize
from rankllm_core.types import IdentifierKind

_MAX_CHARACTERS = 200_000
"""Maximum number of characters searched for these forms."""
_CLASH = "no ranking: the ranks beside the identifiers contradict each other"
_CLASHING_SIGNS = "no ranking: identifiers joined by '>' whose ranks say another order"
_SCATTERED = "no ranking: ranks out of sequence, and identifiers between them that have none"
_UNSORTED = "no ranking: a score beside each identifier, and they are not in the order of their scores"
_BY_NUMBERS = "numbered out of sequence: read by the numbers, not from the first to the last"
_MARK = re.compile(rf"\[|{NOUN}")
_LIST_NUMBER = re.compile(r"\W*\w+[*_]*[ \t]*[.)]")
"""`2.` and `2)` number a list; `2:` and `2 |` may precede a score."""

_ARROWS = re.compile(
    r"""(?x) (?<! \w ) ( [A-Z]\]? ) [ \t]*+ > [ \t]*+ (?= \d{1,3} (?! [\w.] | [ \t]*+> ) )
      | (?<! [^\n,;] ) ( [ \t]*+ \d{1,3} ) [ \t]*+ > [ \t]*+ (?= \[? [A-Z] \]? [ \t]*+ (?: [\n,;] | \Z ) )"""
)
"""`[A] > 2` and `2 > [A]`: with letters as identifiers, a number is not one, and this `>` joins nothing."""


def read_forms(text: str, labels: Collection[str], kind: IdentifierKind) -> Rows:
    """Return an answer that went through `normalise` with every such form rewritten."""
    records = find_records(text, kind)
    if records:
        return _of_records(text, records)
    head, rest = text[:_MAX_CHARACTERS], text[_MAX_CHARACTERS:]
    if kind == "alpha":
        head = _ARROWS.sub(lambda match: f"{match[1] or match[2]}: ", head)
    form = _by_ranks(head, labels, kind) or _by_scores(head, labels, kind) or Rows(head)
    if form.doubt or form.remark or form.ranks:
        return replace(form, text=form.text + rest)
    return read_rows(form.text + rest)


def _of_records(text: str, records: Records) -> Rows:
    """Return the records as a list of their passages, by rank if they have ranks."""
    names, doubt = records.names, AMBIGUOUS if records.is_ambiguous else ""
    if records.ranks:
        ranks = [rank for rank in records.ranks if rank is not None]
        if len(ranks) < len(names) or len(set(ranks)) < len(ranks):
            doubt = _CLASH
        else:
            names = [name for _, name in sorted(zip(ranks, names, strict=True))]
    elif records.scores and not _falls(records.scores):
        doubt = _UNSORTED
    listed = "\n".join(f"[{name}]" for name in names)
    return Rows(f"{text[: records.start]}\n{listed}\n{text[records.end :]}", doubt=doubt)


def _by_ranks(text: str, labels: Collection[str], kind: IdentifierKind) -> Rows | None:
    """Rank by `[1]: 2nd`, `Rank 2: [1]` and the like; otherwise by the numbers of list items that are out of order."""
    for sort in ("rank", "number"):
        claims, is_unclear = find_claims(text, kind, sort)
        if len(claims) < 2:
            continue
        values = [claim.value for claim in claims]
        is_rising = all(one < two for one, two in pairwise(values))
        if sort == "number" and (is_rising or len(set(values)) < len(values)):
            return None  # items in sequence, or several lists
        listed = _write(text, claims, [claim.name for claim in claims])
        if _is_joined(listed, labels, kind):
            if not is_rising and _count_marked(listed, kind) == len(claims):
                return Rows(" ".join(f"[{claim.name}]" for claim in claims), doubt=_CLASHING_SIGNS)
            by_rank = tuple(claim.name for claim in sorted(claims, key=lambda claim: claim.value))
            return None if is_rising else Rows(text, ranks=by_rank)
        if is_rising and not is_unclear:
            return Rows(listed)
        first = list({claim.name: claim for claim in reversed(claims)}.values())
        clashes = len({(claim.name, claim.value) for claim in claims}) > len(first)
        if is_unclear or clashes or len({claim.value for claim in first}) < len(first):
            return Rows(listed, doubt=_CLASH)
        if sort == "number" and not _number_a_list(text, claims, kind):
            return Rows(listed, doubt=AMBIGUOUS)
        if _count_marked(text[claims[0].start : claims[-1].end], kind) > len(claims):
            return Rows(listed, doubt=_SCATTERED)
        slots = sorted(first, key=lambda claim: claim.start)
        names = [claim.name for claim in sorted(slots, key=lambda claim: claim.value)]
        return Rows(_write(text, slots, names), remark=_BY_NUMBERS if sort == "number" else "")
    return None


def _by_scores(text: str, labels: Collection[str], kind: IdentifierKind) -> Rows | None:
    """Accept scores that decrease along the text. Scores in another order do not express a ranking."""
    claims, is_unclear = find_claims(text, kind, "score")
    if len(claims) < 2:
        return None
    listed = _write(text, claims, [claim.name for claim in claims])
    if _is_joined(listed, labels, kind):
        return None
    if not is_unclear and _falls([claim.value for claim in claims]):
        return Rows(listed)
    # A few percentages in the comments of a list do not define its order.
    return Rows(listed, doubt=_UNSORTED) if 2 * len(claims) > _count_marked(listed, kind) else None


def _number_a_list(text: str, claims: Sequence[Claim], kind: IdentifierKind) -> bool:
    """Whether the numbers are list numbers out of order: `2. [1]` above `1. [3]`, or 1 to n in some order."""
    line = text[: claims[0].start].rpartition("\n")[2]
    if _count_marked(line, kind):  # the numbers may belong to the identifiers before them
        return False
    if all(_LIST_NUMBER.match(text, claim.start) for claim in claims):
        return True
    values = [claim.value for claim in claims]
    return sorted(values) == list(range(1, len(values) + 1)) and values != sorted(values, reverse=True)


def _write(text: str, claims: Sequence[Claim], names: Sequence[str]) -> str:
    """Replace each statement with its identifier, bare where it was bare: `2 (best)` above `1` is a list."""
    pieces, done = [], 0
    for claim, name in zip(claims, names, strict=True):
        is_marked = _MARK.search(text, claim.start, claim.end)
        pieces += [text[done : claim.start], f" [{name}] " if is_marked else f" {name} "]
        done = claim.end
    return "".join([*pieces, text[done:]])


def _falls(scores: Sequence[float | None]) -> bool:
    known = [score for score in scores if score is not None]
    return len(known) == len(scores) and known == sorted(known, reverse=True) and known[0] > known[-1]


def _is_joined(text: str, labels: Collection[str], kind: IdentifierKind) -> bool:
    """Whether the text ranks with `[2] > [1]`."""
    chains = find_chains(tuple(tokenize(text, kind)), labels)
    return any(chain.is_joined and len(chain.known) > 1 for chain in chains)


def _count_marked(text: str, kind: IdentifierKind) -> int:
    return sum(token.kind == "name" and token.is_marked for token in tokenize(text, kind))


_SIGN = r"(?: \s*+ (?: =?>=? | &gt; ){1,3} \s*+ )"
_LIST_SIGN = r"(?: [ \t]*+ (?: , | \n ) \s*+ (?: [*•\-] \s++ )? )"
_QUOTED = r"""[\[("'*_`]{0,3}+ %s [\])"'*_`]{0,3}+"""
_FLOAT = _QUOTED % r"\d{1,3}+ (?: \.0{1,3}+ )? (?!\w)"
_PLAIN_NAME = {"numeric": r"[ _\-\#]?+ \d{1,3}+ (?:\.0{1,3}+)?", "alpha": r"[ _\-\#] [A-Z]"}
_LEAD = r"(?: [^\d\n<>:\[]{0,100}+ [:\n] \s*+ )?"


def _whole(first: str, sign: str, other: str) -> re.Pattern[str]:
    entries = rf"(?P<list> {first} (?: {sign} {other} )+ )"
    return re.compile(rf"\s*+ {_LEAD} {entries} [\s.]*+", re.VERBOSE)


def _plain(kind: IdentifierKind, sign: str) -> re.Pattern[str]:
    name = _PLAIN_NAME[kind] + r"(?!\w)"
    first, other = (_QUOTED % f"(?: {prefix} {name} )" for prefix in (r"(?P<word>[A-Za-z]{1,12})", r"(?P=word)"))
    return _whole(first, sign, other)


_KINDS: tuple[IdentifierKind, ...] = ("numeric", "alpha")
_FLOATS = _whole(_FLOAT, _SIGN, _FLOAT)
_JOINED = {kind: _plain(kind, _SIGN) for kind in _KINDS}
_LISTED = {kind: _plain(kind, _LIST_SIGN) for kind in _KINDS}


def read_plain(text: str, labels: Collection[str], kind: IdentifierKind) -> str | None:
    """Rewrite an answer that is only `3.0 > 1.0` or `D3 > D1 > D2` with identifiers in brackets, else return None.

    Without a `>`, as in `D3, D1, D2`, every identifier must occur once.
    """
    head = text[:_MAX_CHARACTERS]
    for pattern, is_complete in ((_FLOATS, False), (_JOINED[kind], False), (_LISTED[kind], True)):
        found = pattern.fullmatch(head) if kind == "numeric" or pattern is not _FLOATS else None
        if found is None:
            continue
        names = _NUMBERS.findall(found["list"]) if kind == "numeric" else _LETTERS.findall(found["list"])
        names = [str(int(name)) if kind == "numeric" else name for name in names]
        if set(names) <= set(labels) and (not is_complete or len(names) == len(set(names)) == len(labels)):
            return " > ".join(f"[{name}]" for name in names)
    return None


_NUMBERS = re.compile(r"(?<![\d.])\d{1,3}")
_LETTERS = re.compile(r"[A-Z](?!\w)")

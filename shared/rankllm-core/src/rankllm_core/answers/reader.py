"""Reads what a listwise model answered: always a permutation, and an honest word on how it was read."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase

from rankllm_core.answers.chains import Chain, find_chains, list_bare, rankings
from rankllm_core.answers.defects import describe_defects
from rankllm_core.answers.rows import AMBIGUOUS, is_paired, read_rows
from rankllm_core.answers.tokens import Token, normalise, tokenize
from rankllm_core.identifiers import IdentifierKind
from rankllm_core.types import Status

_THINK_OPEN = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_THINK_CLOSE = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_ANSWER_TAGS = (
    (re.compile(r"<answer>", re.IGNORECASE), re.compile(r"</answer>", re.IGNORECASE)),  # ReasonRank
    (re.compile(r"\[rankstart\]", re.IGNORECASE), re.compile(r"\[rankend\]", re.IGNORECASE)),  # APEER
)
_FINISHED = re.compile(r"</answer>\s*+(?:<[^<>]{1,30}>\s*+)*\Z", re.IGNORECASE)  # perhaps with <|im_end|> after it
_NUMBERS = frozenset(map(str, range(1, 1000)))
_LETTERS = frozenset(ascii_uppercase)
_PROBE_CHARACTERS = 10_000
"""How much of an answer without a ranking is searched for identifiers of the other kind."""
_AMBIGUOUS_SIGNS = "no ranking: identifiers are joined by both '>' and '<', or by '<' in several pieces"
_TWO_ORDERS = "no ranking: the same identifiers twice, in two orders"
_SURE = 2
"""The tier of `[2] > [1]`, which nothing else in an answer makes doubtful."""
_CUT_OFF = "no ranking: the answer ends inside <think>"
_WRONG_KIND: Mapping[IdentifierKind, str] = {
    "numeric": "no ranking: alphabetic identifiers where numeric ones were asked for",
    "alpha": "no ranking: numeric identifiers where alphabetic ones were asked for",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAnswer:
    """A ranking, and how it was found."""

    order: tuple[int, ...]
    """0-based prompt positions, best first, each exactly once."""
    status: Status
    """`ok`, `repaired` or `fallback`, as `read_answer` says."""
    defects: tuple[str, ...]
    """What was wrong, for people. Empty exactly when the status is `ok`."""
    n_ranked: int = field(default=0, compare=False)
    """How many of the first places the answer gave; the others follow in prompt order."""


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
    - Thinking is skipped: all up to the last `</think>`, and all after a `<think>` that is never closed, unless the
      text ends in `</answer>`. Where `<answer>` or `[rankstart]` is filled in, only what it holds is read.
    - Identifiers joined by `>` come first, then those in brackets or after a noun (`[2], [1]`, `Passage 2`), then bare
      lists (`2, 1, 3`). Beside the first two a bare number or letter counts only where it touches a `>`.
    - Numbers, letters and ranks of a list (`A. [3]`, `1: 3`) are skipped, and so are comments and further columns
      behind a bare identifier. Under a header such as `Passage | Rank`, rows are read in the order of their ranks.
    - A ranking joined by `<` is read from its end.
    - Rankings that share no identifier are pieces of one. Of several, the one with most identifiers is taken, the last
      among equals. Repeats are dropped, the first stays; what is missing follows in prompt order.

    Status:
    - `ok`: every identifier once and nothing else between the first and the last; text around them does not count.
    - `repaired`: a ranking, but an identifier is missing, repeated, unknown, tied (`=`) or in lower case, words stand
      inside it, another ranking in the text contradicts it, or the text is too long to be read to its end.
    - `fallback`: no identifier of the prompt was ranked, or the order cannot be told (`<` and `>` mixed, a number
      beside each identifier that may be its rank or its score); the order is the prompt's.

    Raises ValueError when labels are neither distinct numbers nor distinct letters.
    """
    kind = _kind_of(labels)
    if not labels:
        return ReadAnswer(order=(), status="ok", defects=())
    region, is_cut_off = _answer_region(normalise(text))
    rows = read_rows(region)
    tokens = tuple(tokenize(rows.text, kind))
    best, others = _best_ranking(tokens, frozenset(labels))
    defects = describe_defects(best, others, tokens=tokens, labels=labels, text=rows.text)
    if best.known and best.is_ambiguous:
        defects = (_AMBIGUOUS_SIGNS,)
    elif best.known and best.is_contradictory:
        defects = (_TWO_ORDERS,)
    elif best.known and best.tier < _SURE and (rows.is_ambiguous or is_paired(tokens, labels)):
        defects = (AMBIGUOUS,)
    elif best.known:
        position_of = {label: position for position, label in enumerate(labels)}
        named = dict.fromkeys(best.known_names())
        order = tuple(position_of[name] for name in dict.fromkeys((*named, *labels)))
        return ReadAnswer(order=order, status="repaired" if defects else "ok", defects=defects, n_ranked=len(named))
    elif is_cut_off:
        defects = (_CUT_OFF,)
    elif _is_other_kind(region, kind):
        defects = (_WRONG_KIND[kind],)
    return ReadAnswer(order=tuple(range(len(labels))), status="fallback", defects=defects)


def _kind_of(labels: Sequence[str]) -> IdentifierKind:
    if len(set(labels)) == len(labels):
        if all(label.isascii() and label.isdecimal() and label == str(int(label)) for label in labels):
            return "numeric"
        if _LETTERS.issuperset(labels):
            return "alpha"
    raise ValueError(f"labels must be distinct numbers or distinct letters A-Z, got {list(labels)[:30]}")


def _answer_region(text: str) -> tuple[str, bool]:
    """The part of the text that is meant as the answer, and whether thinking that never ended was cut away."""
    text = _THINK_CLOSE.split(text)[-1]
    thinking = None if _FINISHED.search(text[-100:]) else _THINK_OPEN.search(text)
    if thinking:
        text = text[: thinking.start()]
    for opening, closing in _ANSWER_TAGS:
        for part in reversed(opening.split(text)[1:]):
            inside = closing.split(part, maxsplit=1)[0]
            if inside.strip():
                return inside, thinking is not None
    return text, thinking is not None


def _best_ranking(tokens: Sequence[Token], known: Collection[str]) -> tuple[Chain, Sequence[Chain]]:
    """The ranking to take, and the others that are as sure to be meant as rankings as it is."""
    chains = find_chains(tokens, known)
    found: list[Chain] = []
    for is_joined, is_marked in ((True, True), (False, True), (True, False)):
        found += rankings(chain for chain in chains if (chain.is_joined, chain.is_marked) == (is_joined, is_marked))
    if not any(ranking.known for ranking in found):
        found = list_bare(tokens, known) or found
    best = Chain(names=[])
    for ranking in found:
        if _worth(ranking) >= _worth(best):  # the last among equals
            best = ranking
    return best, [ranking for ranking in found if ranking is not best and ranking.tier == best.tier]


def _worth(ranking: Chain) -> tuple[bool, int, int, bool]:
    return bool(ranking.known), ranking.tier, len(ranking.known), ranking.is_joined


def _is_other_kind(region: str, kind: IdentifierKind) -> bool:
    """Whether the answer ranks by identifiers of the kind that was not asked for."""
    other: IdentifierKind = "alpha" if kind == "numeric" else "numeric"
    known = _LETTERS if other == "alpha" else _NUMBERS
    chains = find_chains(tuple(tokenize(region[:_PROBE_CHARACTERS], other)), known)
    return any(
        token.name in known and not token.is_lower for chain in chains if chain.tier > 0 for token in chain.names
    )

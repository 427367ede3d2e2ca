"""Parser for answers of listwise models: always returns a permutation, with a status and defects."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from string import ascii_uppercase

from rankllm_core.answers.chains import Chain, find_chains, list_bare, rankings
from rankllm_core.answers.defects import describe_defects
from rankllm_core.answers.directions import ASCENDING, says_ascending
from rankllm_core.answers.forms import read_forms, read_plain
from rankllm_core.answers.pairs import goes_in_circles, has_unread_numbers, is_paired
from rankllm_core.answers.rows import AMBIGUOUS, Rows
from rankllm_core.answers.tokens import MAX_PIECES, Token, normalise, tokenize
from rankllm_core.types import IdentifierKind, Status

_THINK_OPEN = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_THINK_CLOSE = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_ANSWER_TAGS = (
    (re.compile(r"<answer>", re.IGNORECASE), re.compile(r"</answer>", re.IGNORECASE)),  # ReasonRank
    (re.compile(r"\[rankstart\]", re.IGNORECASE), re.compile(r"\[rankend\]", re.IGNORECASE)),  # APEER
)
_FINISHED = re.compile(r"</answer>\s*+(?:<[^<>]{1,30}>\s*+)*\Z", re.IGNORECASE)  # optionally followed by <|im_end|>
_NUMBERS = frozenset(map(str, range(1, 1000)))
_LETTERS = frozenset(ascii_uppercase)
_PROBE_CHARACTERS = 10_000
"""Maximum length of an answer without a ranking that is searched for identifiers of the other kind."""
_AMBIGUOUS_SIGNS = "no ranking: identifiers are joined by both '>' and '<', or by '<' in several pieces"
_TWO_ORDERS = "no ranking: the same identifiers twice, in two orders"
_PAIRS = "no ranking: pairs joined by '>' that contradict each other, or ranks and passages"
_ASCENDING_SIGNS = "no ranking: identifiers joined by '>' beside words that say the best comes last"
_SURE = 2
"""Tier of `[2] > [1]`, which nothing else in an answer makes ambiguous."""
_CUT_OFF = "no ranking: the answer ends inside <think>"
_WRONG_KIND: Mapping[IdentifierKind, str] = {
    "numeric": "no ranking: alphabetic identifiers where numeric ones were asked for",
    "alpha": "no ranking: numeric identifiers where alphabetic ones were asked for",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadAnswer:
    """Ranking, and how it was found."""

    order: tuple[int, ...]
    """0-based indices into the prompt, best first, each exactly once."""
    status: Status
    """`ok`, `repaired` or `fallback`, as defined in `read_answer`."""
    defects: tuple[str, ...]
    """Human-readable defects. Empty exactly if the status is `ok`."""
    n_ranked: int = field(default=0, compare=False)
    """Number of leading entries that the answer ordered; the others follow in prompt order."""


def parse_permutation(text: str, labels: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the permutation in a model's answer, and its defects; see `read_answer`.

    The permutation contains the 0-based indices of `labels`, best first, each exactly once; defects are such as
    `repeated [2]`.
    """
    answer = read_answer(text, labels)
    return answer.order, answer.defects


def read_answer(text: str, labels: Sequence[str]) -> ReadAnswer:
    """Read the ranking in a model's answer. Total: any text gives a permutation, in time linear in its length.

    labels: the passages' identifiers in prompt order: numbers or single letters A-Z.

    Rules:
    - Thinking is skipped: everything up to the last `</think>`, and everything after a `<think>` that is never closed,
      unless the text ends in `</answer>`. If `<answer>` or `[rankstart]` is not empty, only its content is read.
    - Identifiers joined by `>` take precedence, then those in brackets or after a noun (`[2], [1]`, `Passage 2`), then
      bare lists (`2, 1, 3`). Next to the first two, a bare number or letter counts only if it touches a `>`.
    - List numbers, letters and ranks (`A. [3]`, `1: 3`) are skipped, as are comments and further columns after a bare
      identifier. Under a header such as `Passage | Rank`, rows are read in the order of their ranks.
    - JSON objects and tables are read by their fields, and identifiers with ranks (`[1]: 2nd`, `Rank 2: [1]`) by rank,
      in whatever order they occur. Scores define no order; they must agree with the written one.
    - `D3 > D1` and `3.0 > 1.0` are read if the answer contains nothing else.
    - A ranking joined by `<`, or described as running from least to most relevant, is reversed.
    - Rankings without common identifiers are pieces of one. Of several, the one with most identifiers is used, the last
      in case of ties. Of repeats, the first counts; missing identifiers follow in prompt order.

    Status:
    - `ok`: every identifier once, and nothing else between the first and the last; surrounding text does not count.
    - `repaired`: a ranking with a defect: an identifier missing, repeated, unknown, tied (`=`) or in lower case, words
      inside it, items numbered out of sequence, a contradicting second ranking, or a text too long to read.
    - `fallback`: no identifier of the prompt was ranked, or the order is ambiguous (`<` and `>` mixed, circular pairs,
      scores that do not decrease, a number next to each identifier that may be rank or score); prompt order is
      returned.

    Raises ValueError when labels are neither distinct numbers nor distinct letters.
    """
    kind = _kind_of(labels)
    if not labels:
        return ReadAnswer(order=(), status="ok", defects=())
    return read_trained_form(text, labels) or read_any_form(text, labels, kind)


def read_trained_form(text: str, labels: Sequence[str]) -> ReadAnswer | None:
    """Read the form that listwise rerankers are trained to write, `[2] > [1] > [3]`; None for any other text.

    Each identifier once, in square brackets and joined by `>`, and otherwise only blanks: a fast path with the same
    result as `read_any_form`.
    """
    if len(text) >= MAX_PIECES:  # it may exceed what is read, which is a defect
        return None
    names = [name.strip(" ") for name in text.strip().split(">")]
    position_of = {f"[{label}]": position for position, label in enumerate(labels)}
    if len(names) != len(labels) or position_of.keys() != set(names):
        return None
    order = tuple(position_of[name] for name in names)
    return ReadAnswer(order=order, status="ok", defects=(), n_ranked=len(order))


def read_any_form(text: str, labels: Sequence[str], kind: IdentifierKind) -> ReadAnswer:
    """Read an answer in any form, as defined in `read_answer`; there is at least one label."""
    region, is_cut_off = _answer_region(normalise(text))
    read = _read_ranking(region, labels, kind)
    if read.status == "fallback" and not read.defects[0].startswith("no ranking"):
        if plain := read_plain(region, labels, kind):
            read = _read_ranking(plain, labels, kind)
        elif is_cut_off:
            read = replace(read, defects=(_CUT_OFF,))
        elif _is_other_kind(region, kind):
            read = replace(read, defects=(_WRONG_KIND[kind],))
    return read


def _read_ranking(region: str, labels: Sequence[str], kind: IdentifierKind) -> ReadAnswer:
    """Return the ranking of an answer without its thinking, or a fallback with the reason, if known."""
    form = read_forms(region, labels, kind)
    tokens = tuple(tokenize(form.text, kind))
    best, others = _best_ranking(tokens, frozenset(labels))
    remarks = (form.remark,) if form.remark and best.tier < _SURE else ()
    if best.known and says_ascending(form.text, best) and not best.is_reversed and not best.is_joined:
        best = replace(best, names=best.names[::-1])
        remarks = (*remarks, ASCENDING)
    if form.ranks:
        others = [*others, Chain(names=[Token("name", name, 0, 0, True) for name in form.ranks], known=set(labels))]
    defects = (*remarks, *describe_defects(best, others, tokens=tokens, labels=labels, text=form.text))
    doubt = _doubt_about(best, tokens, form, labels)
    if best.known and not doubt:
        position_of = {label: position for position, label in enumerate(labels)}
        named = dict.fromkeys(best.known_names())
        order = tuple(position_of[name] for name in dict.fromkeys((*named, *labels)))
        return ReadAnswer(order=order, status="repaired" if defects else "ok", defects=defects, n_ranked=len(named))
    order = tuple(range(len(labels)))
    return ReadAnswer(order=order, status="fallback", defects=(doubt,) if best.known else defects)


def _doubt_about(best: Chain, tokens: Sequence[Token], form: Rows, labels: Sequence[str]) -> str:
    """Return why the order of a ranking is ambiguous; empty if it is not."""
    if best.is_ambiguous:
        return _AMBIGUOUS_SIGNS
    if best.is_contradictory:
        return _TWO_ORDERS
    if goes_in_circles(tokens, labels):
        return _PAIRS
    if best.is_joined and not best.is_reversed and says_ascending(form.text, best):
        return _ASCENDING_SIGNS
    if best.tier < _SURE:
        is_unclear = is_paired(tokens, labels) or has_unread_numbers(form.text, best.names)
        return form.doubt or (AMBIGUOUS if is_unclear else "")
    return ""


def _kind_of(labels: Sequence[str]) -> IdentifierKind:
    if len(set(labels)) == len(labels):
        if all(label.isascii() and label.isdecimal() and label == str(int(label)) for label in labels):
            return "numeric"
        if _LETTERS.issuperset(labels):
            return "alpha"
    raise ValueError(f"labels must be distinct numbers or distinct letters A-Z, got {list(labels)[:30]}")


def _answer_region(text: str) -> tuple[str, bool]:
    """Return the part of the text that is the answer, and whether unterminated thinking was removed."""
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
    """Return the ranking to use, and the others with the same confidence."""
    chains = find_chains(tokens, known)
    found: list[Chain] = []
    for is_joined, is_marked in ((True, True), (False, True), (True, False)):
        found += rankings(chain for chain in chains if (chain.is_joined, chain.is_marked) == (is_joined, is_marked))
    if not any(ranking.known for ranking in found):
        found = list_bare(tokens, known) or found
    best = Chain(names=[])
    for ranking in found:
        if _worth(ranking) >= _worth(best):  # the last one in case of ties
            best = ranking
    return best, [ranking for ranking in found if ranking is not best and ranking.tier == best.tier]


def _worth(ranking: Chain) -> tuple[bool, int, int, bool]:
    return bool(ranking.known), ranking.tier, len(ranking.known), ranking.is_joined


def _is_other_kind(region: str, kind: IdentifierKind) -> bool:
    """Whether the answer ranks by identifiers of the other kind."""
    other: IdentifierKind = "alpha" if kind == "numeric" else "numeric"
    known = _LETTERS if other == "alpha" else _NUMBERS
    chains = find_chains(tuple(tokenize(region[:_PROBE_CHARACTERS], other)), known)
    return any(
        token.name in known and not token.is_lower for chain in chains if chain.tier > 0 for token in chain.names
    )

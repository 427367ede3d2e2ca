"""Detection of rankings in a model's answer: identifiers connected by `>`, brackets or plain listing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from rankllm_core.answers.tokens import Token


@dataclass(slots=True, kw_only=True)
class Chain:
    """Identifiers in the order of the answer, collected while it is read."""

    names: list[Token]
    strays: list[tuple[int, int]] = field(default_factory=list)
    """Offsets of text between two identifiers that is not only `>`; where pieces meet it may be blank."""
    ties: list[tuple[str, str]] = field(default_factory=list)
    """Pairs joined by `=`."""
    is_joined: bool = False
    """Whether at least two of them are joined by `>` or `<`."""
    signs: set[str] = field(default_factory=set)
    """Signs that join them. With only `<`, `names` is reversed to be best first."""
    is_marked: bool = False
    """Whether at least one of them is marked as an identifier."""
    known: set[str] = field(default_factory=set)
    """Those that the prompt contains."""

    @property
    def is_reversed(self) -> bool:
        """Whether the answer lists the best last: `[4] < [5] < [2]`."""
        return self.signs == {"<"}

    @property
    def is_ambiguous(self) -> bool:
        """Whether `<` and `>` contradict each other."""
        return self.signs > {"<"}

    @property
    def is_contradictory(self) -> bool:
        """Whether it lists the same identifiers twice in different orders: `[1, 2, 3] -> [3] > [1] > [2]`."""
        names = list(self.known_names())
        first, second = names[: len(names) // 2], names[len(names) // 2 :]
        return self.is_joined and first != second and len(set(first)) == len(first) and sorted(first) == sorted(second)

    @property
    def tier(self) -> int:
        """Confidence that a ranking is meant. `[2] > [1]`: 2; `2 > 1` and `[2] [1]`: 1; `2 1`: 0."""
        return self.is_joined + self.is_marked

    def known_names(self) -> Iterator[str]:
        """Yield its identifiers that are in the prompt, in order, with repeats."""
        return (token.name for token in self.names if token.kind == "name" and token.name in self.known)


@dataclass(slots=True, kw_only=True)
class _Gap:
    """Text between one identifier and the next."""

    words: bool = False
    lines: int = 0
    join_first: bool = False
    """A `>` directly follows the last identifier."""
    join_last: bool = False
    """Nothing follows the last `>`."""
    tie: bool = False
    signs: set[str] = field(default_factory=set)

    def add(self, kind: str) -> None:
        if kind in _SIGNS:
            self.signs.add(_SIGNS[kind])
            self.join_first |= not self.words
            self.join_last = True
        elif kind == "line":
            self.lines += 1
        else:
            self.words |= kind != "tie"
            self.tie |= kind == "tie"
            self.join_last = False

    @property
    def is_remark(self) -> bool:
        """Whether it is a remark inside a chain, as in `[1] as said > [2]`: words next to a `>`, within a paragraph."""
        return self.words and ((self.join_last and self.lines < 2) or (self.join_first and self.lines < 1))

    def ends(self, chain: Chain) -> bool:
        """Whether the preceding chain ends here: other words follow, or a new paragraph without a `>`."""
        is_paragraph = chain.is_joined and self.lines > 1 and not (self.join_first or self.join_last)
        return (self.words and not self.is_remark) or is_paragraph


def find_chains(tokens: Sequence[Token], known: Collection[str]) -> list[Chain]:
    """Return the chains of an answer. A bare identifier counts only next to a `>`; elsewhere it is prose."""
    chains: list[Chain] = []
    gap = _Gap()
    tokens = _without_loose_less(tokens)
    for token, is_beside in zip(tokens, _beside_join(tokens), strict=True):
        last = chains[-1] if chains else None
        is_name = token.kind == "name" and (is_beside or token.is_marked)
        if not is_name and not (token.kind == "unknown" and is_beside):
            gap.add("words" if token.kind == "name" else token.kind)
        elif last is not None and gap.is_remark and last.is_marked and not token.is_marked:
            gap.add("words")  # "[3] has a score > 5": the remark ends in a number
        else:
            if last is None or gap.ends(last):
                chains.append(Chain(names=[]))
            _append(chains[-1], token, gap, known)
            gap = _Gap()
    for chain in chains:
        if chain.is_reversed:
            chain.names.reverse()
    return chains


def list_bare(tokens: Sequence[Token], known: Collection[str]) -> list[Chain]:
    """Return lists of bare identifiers such as `2, 1, 3`; among words, a list needs two identifiers of the prompt."""
    chains: list[Chain] = []
    has_words, is_open = False, False
    gap = _Gap()
    for token in tokens:
        if token.kind == "name" and not token.is_lower:
            if not is_open:
                chains.append(Chain(names=[]))
            _append(chains[-1], token, gap, known)
            gap, is_open = _Gap(), True
        elif token.kind in ("name", "words", "unknown"):
            has_words, is_open = True, False
        elif token.kind == "tie":
            gap.add("tie")
    return [chain for chain in chains if not has_words or len(chain.known) > 1]


def rankings(chains: Iterable[Chain]) -> list[Chain]:
    """Merge consecutive chains without common identifiers, which are pieces of one ranking.

    Chains without an identifier of the prompt count only if there are no others.
    """
    groups: list[list[Chain]] = []
    known: set[str] = set()
    everything = list(chains)
    for chain in [chain for chain in everything if chain.known] or everything:
        if groups and known.isdisjoint(chain.known):
            groups[-1].append(chain)
            known |= chain.known
        else:
            groups.append([chain])
            known = set(chain.known)
    return [_merge(group) if len(group) > 1 else group[0] for group in groups]


def _merge(pieces: Sequence[Chain]) -> Chain:
    between = [(first.names[-1].end, second.names[0].start) for first, second in pairwise(pieces)]
    return Chain(
        names=[token for piece in pieces for token in piece.names],
        strays=sorted([*between, *(stray for piece in pieces for stray in piece.strays)]),
        ties=[tie for piece in pieces for tie in piece.ties],
        is_joined=any(piece.is_joined for piece in pieces),
        is_marked=any(piece.is_marked for piece in pieces),
        known=set().union(*(piece.known for piece in pieces)),
        # The order of reversed pieces relative to each other is unknown.
        signs=set().union(*(piece.signs | {">"} if piece.is_reversed else piece.signs for piece in pieces)),
    )


def _append(chain: Chain, token: Token, gap: _Gap, known: Collection[str]) -> None:
    if chain.names:
        before = chain.names[-1]
        chain.is_joined |= gap.join_first or gap.join_last
        chain.signs |= gap.signs
        if gap.words:
            chain.strays.append((before.end, token.start))
        elif gap.tie and not gap.join_first:
            chain.ties.append((before.name, token.name))
    chain.names.append(token)
    chain.is_marked |= token.is_marked and token.kind == "name"
    if token.kind == "name" and token.name in known:
        chain.known.add(token.name)


def _beside_join(tokens: Sequence[Token]) -> list[bool]:
    """For each token, whether a `>` or `=` is next to it, ignoring line breaks."""
    beside = [False] * len(tokens)
    before = -1
    for here, token in enumerate(tokens):
        if token.kind == "line":
            continue
        if before >= 0:
            beside[before] |= token.kind in _TOUCHING
            beside[here] = tokens[before].kind in _TOUCHING
        before = here
    return beside


def _without_loose_less(tokens: Sequence[Token]) -> Sequence[Token]:
    """Turn every `<` that is not between two identifiers into a word, as in `[3] scores < 5`."""
    if not any(token.kind == "less" for token in tokens):
        return tokens
    kept = list(tokens)
    for here, token in enumerate(tokens):
        if token.kind == "less":
            around = [*_next_kinds(tokens, here, -1), *_next_kinds(tokens, here, 1)]
            if around != ["name", "name"]:
                kept[here] = token._replace(kind="words")
    return kept


def _next_kinds(tokens: Sequence[Token], here: int, step: int) -> list[str]:
    """Return the kind of the next token on one side, ignoring a line break; nothing beyond a blank line."""
    for distance in (1, 2):
        place = here + step * distance
        if not 0 <= place < len(tokens):
            return []
        if tokens[place].kind != "line":
            return [tokens[place].kind]
    return []


_SIGNS = {"join": ">", "less": "<"}
_TOUCHING = ("join", "less", "tie")

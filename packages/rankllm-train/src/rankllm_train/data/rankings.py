"""Read the passages that a listwise prompt lists and the ranking in its target, and convert their identifiers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from rankllm_core.errors import RankLLMError
from rankllm_core.files.json_text import shown
from rankllm_core.text import defuse_identifiers
from rankllm_core.types import MAX_ALPHA, IdentifierKind, identifiers
from rankllm_train.data.passage_ends import last_passage_end
from rankllm_train.data.records import ListwiseRecord

_NAMES: Mapping[IdentifierKind, str] = {"numeric": r"[1-9][0-9]{0,2}", "alpha": r"[A-Z]"}
_PHRASES: Mapping[IdentifierKind, str] = {
    "numeric": "a numerical identifier",
    "alpha": "an alphabetical identifier",
}
"""How the originals' two templates (rank_zephyr, rank_zephyr_alpha) describe the identifiers."""
_RANKINGS = {kind: re.compile(rf"\[{name}\](?: > \[{name}\])*") for kind, name in _NAMES.items()}
_LINE_STARTS = {kind: re.compile(rf"^\[({name})\](?= |$)", re.MULTILINE) for kind, name in _NAMES.items()}
_RANKINGS_IN_TEXT = {kind: re.compile(rf"\[{name}\](?:\s*>\s*\[{name}\])+") for kind, name in _NAMES.items()}
_EXAMPLES = {kind: re.compile(rf"(?<=e\.g\., )\[{name}\](?: > \[{name}\])+") for kind, name in _NAMES.items()}
_FIRST_PASSAGE = re.compile(r"^\[(1|A)\](?= |$)", re.MULTILINE)
_STATED_NUMBER = re.compile(r"provide you with ([0-9]{1,4}) passages")


def ranking_of(target: str) -> tuple[str, ...]:
    """Return the identifiers of a target, best first: `("2", "1", "3")` for `[2] > [1] > [3]`.

    The grammar is strict, because the model will write what it is trained on: either numbers without leading zeros or
    capital letters, each in brackets, joined by ` > `, with nothing around them. `target_ranks` checks that they name
    each passage of the prompt exactly once. Raises RankLLMError showing where the target leaves the grammar.
    """
    best = 0
    for pattern in _RANKINGS.values():
        match = pattern.match(target)
        if match and match.end() == len(target):
            return tuple(name.strip("[]") for name in target.split(" > "))
        best = max(best, match.end() if match else 0)
    position = f"{shown(target[best:])} at character {best + 1}" if best else shown(target)
    raise RankLLMError(f"target: expected only a ranking like '[2] > [1] > [3]', found {position}")


def passage_identifiers(prompt: str) -> tuple[str, ...]:
    """Return the identifiers of a prompt's passages in order: `("1", ..., "20")` or `("A", ..., "T")`.

    A passage starts at a line that begins with its identifier, `[3] ` or `[C] `; the first one, `[1] ` or `[A] `,
    decides the kind. Raises RankLLMError if there is none, if they do not count up one by one (a line in a passage that
    looks like an identifier cannot be told from the next passage), or if the prompt states another number of passages.
    """
    kind, matches = _passage_lines(prompt)
    names = tuple(match[1] for match in matches)
    if kind == "alpha" and len(names) > MAX_ALPHA:
        raise RankLLMError(
            f"prompt: {len(names)} lines begin with a letter in brackets, but identifiers only go up to [Z]"
        )
    for number, (name, wanted) in enumerate(zip(names, identifiers(kind, len(names)), strict=True), start=1):
        if name != wanted:
            raise RankLLMError(
                f"prompt: expected passage {number} to begin with [{wanted}], found a line that begins with [{name}]; "
                f"number the passages in order, and write ({name}) if such a line is part of a passage"
            )
    stated = _STATED_NUMBER.search(prompt, 0, matches[0].start())
    if stated and int(stated[1]) != len(names):
        raise RankLLMError(f"prompt: announces {stated[1]} passages, but {len(names)} lines begin with an identifier")
    return names


def _passage_lines(prompt: str) -> tuple[IdentifierKind, list[re.Match[str]]]:
    first = _FIRST_PASSAGE.search(prompt)
    if first is None:
        raise RankLLMError(
            "prompt: no line begins with [1] or [A]; expected one line per passage, each beginning with its identifier"
        )
    kind: IdentifierKind = "numeric" if first[1] == "1" else "alpha"
    return kind, list(_LINE_STARTS[kind].finditer(prompt))


def identifier_kind(prompt: str) -> IdentifierKind:
    """Return whether a prompt identifies its passages by numbers or letters. Raises RankLLMError if it lists none."""
    return _passage_lines(prompt)[0]


def target_ranks(record: ListwiseRecord) -> tuple[int, ...]:
    """Return the 1-based rank (1 is best) that the target gives each passage, in prompt order.

    Raises DataError naming file, line and record if the target is malformed or does not rank each passage of the prompt
    exactly once; the message lists repeated, unknown and missing identifiers.
    """
    try:
        labels, ranking = passage_identifiers(record.prompt), ranking_of(record.target)
        _check_permutation(ranking, labels)
    except RankLLMError as error:
        raise record.error(str(error)) from None
    rank_of = {name: rank for rank, name in enumerate(ranking, start=1)}
    return tuple(rank_of[label] for label in labels)


def _check_permutation(ranking: tuple[str, ...], labels: tuple[str, ...]) -> None:
    given, expected = set(ranking), set(labels)
    wrong = {
        "repeated": [name for name in dict.fromkeys(ranking) if ranking.count(name) > 1],
        "unknown": [name for name in dict.fromkeys(ranking) if name not in expected],
        "missing": [label for label in labels if label not in given],
    }
    defects = [f"{word} " + " ".join(f"[{name}]" for name in names) for word, names in wrong.items() if names]
    if defects:
        raise RankLLMError(
            f"target: expected each of [{labels[0]}] to [{labels[-1]}] exactly once, found {', '.join(defects)}"
        )


def with_identifiers(record: ListwiseRecord, kind: IdentifierKind) -> ListwiseRecord:
    """Return the record with its passages identified by 1, 2, 3, ... or A, B, C, ...; unchanged if they already are.

    Converted are the identifiers at the start of the passages, the words "a numerical identifier" (or "an alphabetical
    identifier") before them, the last example after `e.g., ` behind them, and the target. Everything else, in
    particular the query and the passages, is untrusted text: anything in it that looks like an identifier is put in
    round brackets, as at inference (`defuse_identifiers`), and nothing else is changed.
    Raises DataError naming file, line and record if the record is malformed (`target_ranks`), has more passages than
    there are letters, or shows a ranking other than the example outside the passages.
    """
    ranks = target_ranks(record)
    old = identifier_kind(record.prompt)
    if old == kind:
        return record
    if kind == "alpha" and len(ranks) > MAX_ALPHA:
        raise record.error(
            f"{len(ranks)} passages, but alpha identifiers only go up to Z; keep the record numeric, or remove it"
        )
    try:
        target = _rename(record.target, old, kind)
        prompt = _prompt_with(record.prompt, old, kind)
    except RankLLMError as error:
        raise record.error(str(error)) from None
    return replace(record, prompt=prompt, target=target)


def _prompt_with(prompt: str, old: IdentifierKind, new: IdentifierKind) -> str:
    _, matches = _passage_lines(prompt)
    ends = [match.start() for match in matches[1:]]
    ends.append(last_passage_end(prompt, matches[-1].end()))
    blocks = [
        (match[1], prompt[match.end() : end].partition("\n")[2]) for match, end in zip(matches, ends, strict=True)
    ]
    if len(blocks) > 1 and all(f"[{name}]" in behind for name, behind in blocks[:-1]):
        raise RankLLMError(
            "prompt: the identifier of each passage is repeated after it, and conversion would not change the copy; "
            "write the records with other identifiers instead (train label --identifiers)"
        )
    opening = prompt[: matches[0].start()].replace(_PHRASES[old], _PHRASES[new], 1)
    parts = [_without_rankings(opening, old, new)]
    for match, end, name in zip(matches, ends, identifiers(new, len(matches)), strict=True):
        parts.append(f"[{name}]" + _defuse(prompt[match.end() : end], new))
    closing = prompt[ends[-1] :]
    # The query precedes the example, so the last match is the template's.
    examples = list(_EXAMPLES[old].finditer(closing))
    start, end = examples[-1].span() if examples else (len(closing), len(closing))
    parts += [_without_rankings(closing[:start], old, new), _rename(closing[start:end], old, new)]
    parts.append(_without_rankings(closing[end:], old, new))
    return "".join(parts)


def _without_rankings(text: str, old: IdentifierKind, new: IdentifierKind) -> str:
    """Return text from around the passages, defused. Raises RankLLMError if it contains a ranking."""
    ranking = _RANKINGS_IN_TEXT[old].search(text)
    if ranking:
        raise RankLLMError(
            f"prompt: found {shown(ranking[0])} outside the passages, which is not the example after 'e.g., '; "
            "it may belong to the instruction or to the query, so it cannot be converted; remove it from the prompt"
        )
    return _defuse(text, new)


def _rename(ranking: str, old: IdentifierKind, new: IdentifierKind) -> str:
    """Convert a ranking, such as `[2] > [1]`, to the other kind of identifiers."""

    def renamed(match: re.Match[str]) -> str:
        position = int(match[1]) if old == "numeric" else ord(match[1]) - ord("A") + 1
        if new == "alpha" and position > MAX_ALPHA:
            raise RankLLMError(f"[{match[1]}] has no letter: alpha identifiers only go up to Z")
        return f"[{identifiers(new, position)[-1]}]"

    return re.sub(rf"\[({_NAMES[old]})\]", renamed, ranking)


def _defuse(text: str, kind: IdentifierKind) -> str:
    return defuse_identifiers(text, alpha=kind == "alpha")

"""What a listwise template asks for, guessed from its words: for files of other projects, which do not declare it.

Templates that ship with rankllm declare it, and a test holds each declaration against the guess.
"""

from __future__ import annotations

from rankllm_core.types import CHAIN, AnswerForm, IdentifierKind

ANSWER_FORMS = {
    "chain": CHAIN,
    "rankstart": AnswerForm(opening="[rankstart] [", link="] > [", closing="] [rankend]"),
    "passages": AnswerForm(opening="[PASSAGE", link=", PASSAGE", closing="]"),
}
"""Name -> what stands around the identifiers of an answer: `[2] > [1]`, APEER's form, LRL's form."""
_NUMERIC = ("numerical identifier", "number identifier", "[2] > [1]", "[1] > [2]", "PASSAGE2")
_ALPHA = ("alphabetical identifier", "[B] > [A]")


def guess_identifiers(*parts: str | None) -> IdentifierKind | None:
    """Return the kind of identifiers that the parts of a prompt speak of; None where they name none."""
    words = _words(*parts)
    if any(name in words for name in _ALPHA):
        return "alpha"
    return "numeric" if any(name in words for name in _NUMERIC) else None


def guess_answer(body: str, *parts: str | None) -> str:
    """Return the name in `ANSWER_FORMS` of the answer that a prompt asks for."""
    if "PASSAGE{rank}" in body:
        return "passages"
    return "rankstart" if "[rankstart]" in _words(*parts) else "chain"


def guess_reasoning(*parts: str | None) -> bool:
    """Whether a prompt has the model reason in words before it gives the ranking inside `<answer>`."""
    return "<answer>" in _words(*parts)


def _words(*parts: str | None) -> str:
    return " ".join(part for part in parts if part)

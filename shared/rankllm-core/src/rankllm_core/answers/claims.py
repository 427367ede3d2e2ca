"""Statements about single passages in an answer: a rank (`[1]: 2nd`, `Rank 2: [1]`) or a score (`[1] (score: 2)`).

Each form is complete, an identifier with its rank or score, and counts only if an answer contains it at least twice.
These forms do not affect tokenization.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rankllm_core.answers.tokens import NOUN
from rankllm_core.types import IdentifierKind

Sort = Literal["rank", "number", "score"]
"""What accompanies the identifiers: an explicit rank, the number of a list item, or a score."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Identifier with its rank or score, by offsets in the answer."""

    name: str
    value: float
    start: int
    end: int


_LAST_RANK = 10_000
"""Rank of what an answer calls the worst."""
_ORDINALS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh"),
    *("twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth"),
    "twentieth",
)
_RANK_OF_WORD: Mapping[str, float] = {
    **{word: rank for rank, word in enumerate(_ORDINALS, start=1)},
    **dict.fromkeys(("best", "most"), 1),
    **dict.fromkeys(("last", "worst", "least"), _LAST_RANK),
}
ORDINAL_WORDS = (
    rf"(?i:(?:{'|'.join(_ORDINALS)})(?:[ _-](?:best|place|most[ _]relevant))?"
    r"|best|worst|last|(?:most|least)[ _]relevant)"
)
"""Regular expression for a rank in words."""
_WORDS: Mapping[str, str] = {
    "QUOTES": r"""["'*_`]{0,3}+""",
    "NOUN": rf"(?<!\w) (?: {NOUN} (?: [ _]? (?i:id|number|no\.?) \b )? | (?i:id|pid|docid) \b ) [ \t_\#:=\"']{{0,5}}+",
    "BRACKETS": r"\[ [ ]? (?: [A-Za-z]{1,9} [ _\#]{0,2} )? IDENTIFIER [ ]? \]",
    "MARKED": r"QUOTES (?: (?: NOUN )? QUOTES BRACKETS | NOUN \(? IDENTIFIER \)? ) QUOTES",
    "NAME": r"(?P<name> MARKED | (?<! [^\s,;|{(*_•\-] ) (?<! [\w\])] [ \t] ) QUOTES IDENTIFIER QUOTES )",
    "RANKED": r"""(?i: (?:final[ ])? (?:rank(?:ed|s|ing)?|placed?|position(?:ed)?) (?:[ ](?:is|as|at|in|number|no\.))? )
                  ["'*_` \t:=\#]{0,6}+ (?:the[ ])?""",
    "RANK": r"(?P<rank> \d{1,3} (?:st|nd|rd|th)? (?! \w | [.,]?\d | % | [ ]?/ ) | WORD )",
    "WORD": rf"(?: {ORDINAL_WORDS} \b )",
    "ORDINAL": r"\d{1,3} (?:st|nd|rd|th) \b (?:[ ]place\b)?",
    "SCORED": r"""(?i: (?:(?:final|relevance|relevancy|similarity|confidence)[ _])?
                  (?:scored?|scores|relevance|relevancy|rating|rated|grade|confidence|similarity|probability)
                  (?:[ ](?:is|of|at))? ) ["'*_ \t:=]{1,6}+""",
    "PLAIN": r"-?\d{1,4}\.\d{1,9}%? | \d{1,4}% | \d{1,4}[ ]?/[ ]?\d{1,4}(?![\d/]) | [★⭐]{1,10}☆{0,10}",
    "SCORE": r"(?P<score> PLAIN | -?\d{1,6} (?!\w|\.\d) )",
    "THEN": r"[ \t]*+ (?: [:=|(>,\-–—]{1,3}+ [ \t]*+ )? QUOTES "
    r"(?i: (?:is|was|gets?|got|comes?|goes|takes?|has|should[ ]be|belongs|at|in) [ ] (?:(?:at|in|on|an?)[ ])? )?",
    "SIGN": r"[ \t]*+ (?: [:.)=|>\-–—]{1,3}+ | is\b | goes[ ]to\b ) QUOTES [ \t]*+",
    "FIELD": r"(?: SIGN (?: \n [ \t]*+ )? | [ \t]*+ ,? [ \t]*+ (?= QUOTES NOUN ) | [ \t]++ (?=QUOTES \[)"
    r" | [ \t]*+ \n [ \t]*+ (?= QUOTES (?: \[ | NOUN ) ) )",
    "CLOSED": r"(?: (?<= [\w★☆⭐%] ) [^()\[\]\n]{0,200}+ \) )?",
    "ENDS": r"(?= [ \t]*+ (?: [,;)}|*_\n] | \. (?!\d) | and\b | \Z ) | [ \t]++ (?: QUOTES \[ | NOUN ) )",
}
"""Expansions of the capitalized words in the forms below and in each other: verbose regular expressions."""
_BEHIND: Mapping[Sort, tuple[str, ...]] = {
    "rank": (
        r"(?i:rank|position) \( (?P<name> MARKED | IDENTIFIER ) \) SIGN RANK",  # rank(1) = 3
        r"NAME THEN RANKED RANK CLOSED",  # [1] is ranked 3rd; [1] - rank: 2; [1] (rank 2, off topic)
        r"(?P<name> MARKED ) [ \t]*+ \n [ \t]*+ RANKED RANK",  # passage: 1, rank: 2, a line each
        r"NAME THEN (?:the[ ])? (?P<rank> ORDINAL | WORD ) CLOSED ENDS",  # [1]: 2nd; [1] comes second; 1 (2nd)
    ),
    "number": (),
    "score": (
        r"NAME THEN (?: with[ ](?:an?[ ])? )? SCORED SCORE CLOSED",  # [1] (score: 2)
        r"NAME THEN (?P<score> -?\d{1,6} (?:\.\d{1,9})? ) [ ] (?i:points?|pts|stars?) \b CLOSED",  # [1] gets 2 points
        r"NAME THEN (?P<score> PLAIN ) CLOSED ENDS",  # [1] = 0.9; [1]: 80%; [1] (4/5); [1] ★★★
    ),
}
"""Forms with the rank or score after the identifier."""
_BEFORE: Mapping[Sort, tuple[str, ...]] = {
    "rank": (
        r"(?<!\w) RANKED RANK QUOTES FIELD (?P<name> MARKED )",  # Rank 2: [1]; Rank: 1, Passage: 3; a line each
        r"(?<!\w) (?: (?i:the) [ ] )? (?P<rank> WORD ) QUOTES SIGN (?P<name> MARKED )",  # second: [1]; Best - [3]
        r"(?<!\w) (?P<rank> ORDINAL ) QUOTES (?: SIGN | [ ] ) (?P<name> MARKED )",  # 2nd: [1]
    ),
    "number": (
        r"(?: (?<![\w\]).]) (?<![\w\])][ \t]) | (?=\() ) [*_]{0,2} \(? (?: (?i:number|no\.?|top) [ \t]{0,3}+ )?"
        r" (?: \#? (?P<number>\d{1,3}) | (?P<letter>[A-Za-z]) ) [*_]{0,2} [ \t]{0,3}+"
        r" [.):|\-–—]{1,3}+ [*_]{0,2} [ \t]*+ (?P<name> MARKED )",  # 2. [1]; (2) [1]; b) [1]; No. 2: [1]
    ),
    "score": (
        r"(?<!\w) SCORED SCORE QUOTES FIELD (?P<name> MARKED )",  # Score 2: [1]
        r"(?<![\w.]) (?P<score> PLAIN ) QUOTES SIGN (?P<name> MARKED )",  # 0.9: [1]
    ),
}
"""Forms with the rank, number or score before the identifier."""
_IDENTIFIER = {"numeric": r"\d{1,3} (?! \w | [.,:]\d )", "alpha": r"[A-Z] (?!\w)"}
_LAST_NAME = {"numeric": re.compile(r"\d{1,3}"), "alpha": re.compile(r"(?<![A-Za-z])[A-Z](?![A-Za-z])")}


def read_rank(written: str) -> float | None:
    """Parse a rank in digits, as an ordinal or in words."""
    if digits := re.match(r"(?i:rank)?[ _]?(\d{1,9})", written):
        return int(digits[1])
    return _RANK_OF_WORD.get(re.split(r"[ _-]", written.lower())[0])


def read_score(written: str) -> float | None:
    """Parse a score given as a number, a percentage, a fraction or stars."""
    if stars := sum(map(written.count, "★⭐")):
        return stars
    try:
        return float(written.partition("/")[0].strip("% \t"))
    except ValueError:
        return None


def _read_letter(written: str) -> float:
    return ord(written.lower()) - ord("a") + 1


_READ = {"rank": read_rank, "number": read_rank, "letter": _read_letter, "score": read_score}


def _compile(forms: tuple[str, ...], kind: IdentifierKind) -> re.Pattern[str]:
    """Combine all forms into one pattern; group names get the form's number, since they must be unique."""
    written = []
    for number, form in enumerate(forms):
        while (spelled := re.sub(r"\b[A-Z]{4,}\b", lambda match: _spelled(match[0], kind), form)) != form:
            form = spelled
        written.append(re.sub(r"\(\?P<(\w+)>", rf"(?P<\1_{number}>", form))
    return re.compile("|".join(written) or r"(?!)", re.VERBOSE)


def _spelled(word: str, kind: IdentifierKind) -> str:
    return _IDENTIFIER[kind] if word == "IDENTIFIER" else _WORDS.get(word, word)


_HINTS: Mapping[Sort, re.Pattern[str]] = {
    "rank": re.compile(
        rf"(?i)rank|place|position|\d(?:st|nd|rd|th)\b|{'|'.join(_ORDINALS)}|best|worst|last|(?:most|least)[ ]relevant"
    ),
    "number": re.compile(rf"""[.):|\-–—][*_]{{0,2}}[ \t]*+["'*_`]{{0,3}}+(?:\[|{NOUN})"""),
    "score": re.compile(
        r"(?i)\d%|\d\.\d|\d[ ]?/[ ]?\d|[★⭐]|point|pts|star|score|relevan|rat(?:ing|ed)|grade|confid|similar|probab"
    ),
}
"""Patterns that every form of a kind contains and that are fast to search: most answers contain none of them."""


@functools.cache
def _patterns(sort: Sort, kind: IdentifierKind) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Compile the patterns when an answer first needs them, since this takes longer than printing `--help`."""
    return _compile(_BEHIND[sort], kind), _compile(_BEFORE[sort], kind)


def find_claims(text: str, kind: IdentifierKind, sort: Sort) -> tuple[tuple[Claim, ...], bool]:
    """Return the statements of one kind in an answer that went through `normalise`, in reading order.

    Also returns whether the identifiers before the ranks match as well as those after them.
    """
    if not _HINTS[sort].search(text):
        return (), False
    behind, before = (_find(pattern, text, kind) for pattern in _patterns(sort, kind))
    is_unclear = len(behind) == len(before) > 1 and _values(behind) != _values(before)
    return (behind if len(behind) > len(before) else before), is_unclear


def _find(pattern: re.Pattern[str], text: str, kind: IdentifierKind) -> tuple[Claim, ...]:
    claims = []
    for match in pattern.finditer(text):
        groups = {key.partition("_")[0]: found for key, found in match.groupdict().items() if found is not None}
        # The last number or letter is the identifier, as in `Passage [3]` and `document A`.
        names = _LAST_NAME[kind].findall(groups.pop("name"))
        ((sort, written),) = groups.items()
        value = _READ[sort](written)
        if names and value is not None:
            name = str(int(names[-1])) if kind == "numeric" else names[-1]
            claims.append(Claim(name, value, match.start(), match.end()))
    return tuple(claims)


def _values(claims: tuple[Claim, ...]) -> dict[str, float]:
    return {claim.name: claim.value for claim in claims}

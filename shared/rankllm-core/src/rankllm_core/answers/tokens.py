"""Tokenization of a model's answer into identifiers, `>` signs and other words, in linear time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rankllm_core.spellings import INVISIBLE, INVISIBLE_BEYOND, SPELLINGS, TERMINAL_ESCAPE
from rankllm_core.types import IdentifierKind

TokenKind = Literal["name", "unknown", "join", "less", "tie", "words", "line", "unread"]

MAX_PIECES = 100_000
"""Maximum number of words, numbers and signs read from one answer: far more than a ranking needs, about one second."""


class Token(NamedTuple):
    """Piece of an answer. A named tuple, because a degenerate answer has hundreds of thousands of them."""

    kind: TokenKind
    """`name`: looks like an identifier; `unknown`: other text in brackets; `join`: `>`; `less`: `<`;
    `tie`: `=`; `words`: other text; `line`: a line break; `unread`: the rest of an answer that is too long."""
    name: str
    """For a `name`: its canonical spelling (`[07]` is `7`, `[b]` is `B`); otherwise the text."""
    start: int
    """Offset of the first character."""
    end: int
    """Offset past the last character."""
    is_marked: bool
    """For a `name`: brackets or a noun mark it as one (`[2]`, `11]`, `Passage 2`); bare numbers may be prose."""
    is_lower: bool = False
    """For a `name`: a lower-case letter where the prompt has upper case."""
    is_bracketed: bool = False
    """For a `name`: marked by square brackets, and not only by a noun or the list that contains it."""


NOUN = r"(?i:passage|document|doc|paragraph|candidate|item|text)"
SHORT_NOUN = r"(?:[Pp](?=\d)|\#(?=\d))"
"""`P3`, `#3`: refer to a passage, but are too short to make a number in prose an identifier."""
# Joined to more text, a number or letter is not an identifier: 2nd, m2, 3.5, 10:30, 5%, 2019-01-02, 5·5–7·0, I'm, A/B.
GLUE = ".·/'’\\-–—−"
"""Characters that join digits or letters into one word, as the content of a regular expression's `[...]`."""
_UNGLUED = rf"(?![^\W_]|%|[:{GLUE}][^\W_])"
_ZEROS = r"\.0{1,3}(?=\s*+[\])])"  # [3.0]
IDENTIFIER = {
    "numeric": rf"\d++(?:{_UNGLUED}|(?={_ZEROS}))(?![ \t]{{0,3}}+{NOUN}s\b)(?:{_ZEROS})?",  # "20 passages" is a count
    "alpha": rf"[A-Za-z]{_UNGLUED}",
}
"""Regular expression for an identifier on its own."""

_MAX_DIGITS = 9
"""Longer numbers never identify passages; int() on thousands of digits is slow or rejected."""

# Possessive quantifiers (++, *+) never backtrack, so that no answer can make the scan quadratic. Groups are repeated at
# most 64 times, since each repetition is recorded.
_GRAMMAR = r"""
    (?P<line>  \n [\ \t*\-]*+ (?: \d{1,3} [.)] (?=[\ \t]++[^\s>=]) )? )  # a line break, the number of a list item
  | (?P<join>  (?: (?: &gt; | =?>=? | \\succ(?:eq)?\b ) [^\S\n]*+ ){1,64} )
  | (?P<tie>   =++ )
  | (?P<tag>   </?[A-Za-z|][\w|/:\-]{1,40}> | </[A-Za-z]> )                   # </answer>, <|im_end|>, </s>
  | (?P<less>  (?: (?: &lt; | <=? ) [^\S\n]*+ ){1,64} )
  | (?P<marker>(?<! [\w\])] ) (?<! [\w\])] [\ \t] )                           # of a line, or behind a sign
               (?: (?i:rank(?:ed)?|place|position|number|no\.?|top) [\ \t]{0,3}+ \#? )?   # A. [L], Rank 1: [3], (1) [3]
               (?: (?: \#? \d{1,3} (?:st|nd|rd|th)? | [A-Za-z] ) [*_]{0,2} [\ \t]{0,3}+ [.):|\-–—]{1,3}+
                 | \( (?: \d{1,3} | [A-Za-z] ) \) ) [*_]{0,2}
               [\ \t]*+ (?= ["'*_`(]{0,3}+ (?: \[ | NOUN \b ) ) )
  | (?P<remark>\( (?! \s*+ (?:NOUN[\ \t_#]{0,3}+)? IDENTIFIER \s*+ \) )        # (area 5 m²)
               (?= [^()>]* [^\W\d_]{2} ) [^()>]*+ \) )
  | (?P<name>  (?P<open> [\[(] \s*+ ["'*_`]{0,3}+ )?
               (?P<noun> NOUN s?+ [\ \t_#]{0,3}+ | SHORT )?
               (?P<inner> \[ \s*+ )?
               (?P<identifier> IDENTIFIER )
               (?P<close> ["'*_`]{0,3}+ \s*+ (?: \]++ [)]*+ | [)]++ ) )? )
  | (?P<other> \[ [^\[\]<>,;=\n]{1,40}+ \] )
  | (?P<fill>  (?: [^\S\n] | [\],;*_`"'|\#•\-–—+~] | \\(?!succ) | &(?![gl]t;)
               | \. (?=[\ \t\r]*+(?:\n|\Z)) | (?i:and)\b ){1,64} )
  | (?P<open_list> \[ )
  | (?P<word>  \d++ (?: : \d++ ){1,16} | \w++ (?: ['’.·%/\-–—−] \w++ ){0,64} | [^\w\s\[\]<>=,;(&*_`"'|\#]++ | . )
"""
_PATTERN = {
    kind: re.compile(
        _GRAMMAR.replace("NOUN", NOUN).replace("SHORT", SHORT_NOUN).replace("IDENTIFIER", identifier),
        re.VERBOSE | re.DOTALL,
    )
    for kind, identifier in IDENTIFIER.items()
}


def normalise(text: str) -> str:
    """Convert full-width, circled and other forms of brackets, digits, letters and `>` to ASCII; drop invisible
    characters."""
    return _UNSEEN.sub("", text.translate(SPELLINGS)) if not text.isascii() or not text.isprintable() else text


_UNSEEN = re.compile(f"{TERMINAL_ESCAPE}|[{INVISIBLE}]+|[{INVISIBLE_BEYOND}]+")


@dataclass(slots=True)
class _Brackets:
    """State of brackets around identifiers while an answer is read."""

    is_list: bool = False
    """`[2, 1, 3]` and `Passages 2, 1, 3` also mark the items between the ends."""
    is_open: bool = False
    """Whether a bracket is open that does not start with an identifier."""
    has_words: bool = False
    """Whether it contains words, so that a number before its end is prose: `[see page, 12]`."""

    def add(self, found: str | None, text: str) -> None:
        """Update the state with a piece that is not an identifier."""
        if found == "open_list":
            self.is_open, self.has_words = True, False
        elif found == "fill" and "]" in text:
            self.is_open = False
        elif found in ("word", "remark"):
            self.is_list = False
            self.has_words = True


def tokenize(text: str, kind: IdentifierKind, *, in_list: bool = False) -> Iterator[Token]:
    """Yield the tokens of an answer that went through `normalise`; punctuation and markup between them are dropped.

    in_list: read as the continuation of a list (`Passages 2, 1,`). The last token has kind `unread` if the answer
    exceeds the limit.
    """
    brackets = _Brackets(is_list=in_list)
    in_words = False
    for count, match in enumerate(_PATTERN[kind].finditer("\n" + text)):
        found = match.lastgroup
        start, end = max(match.start() - 1, 0), match.end() - 1
        if count >= MAX_PIECES:
            yield Token("unread", "", start, len(text), False)
            return
        if found == "name":
            yield _name(match, kind, brackets)
        elif found == "other":
            yield Token("unknown", match[0][1:-1].strip(), start, end, True)
        elif found in _SIGNS:
            kind_of_sign, sign = _SIGNS[found]
            yield Token(kind_of_sign, sign, start, end, False)
        else:
            brackets.add(found, match[0])
            if found in ("word", "remark") and not in_words:
                yield Token("words", "", start, end, False)
        in_words = found in ("word", "remark") or (in_words and found in ("fill", "tag", "open_list", "marker"))


_SIGNS: Mapping[str | None, tuple[TokenKind, str]] = {
    "join": ("join", ">"),
    "less": ("less", "<"),
    "tie": ("tie", "="),
    "line": ("line", "\n"),
}


def _name(match: re.Match[str], kind: IdentifierKind, brackets: _Brackets) -> Token:
    """Return the token of an identifier."""
    before = (match["open"] or "") + (match["inner"] or "")
    close = match["close"] or ""
    noun = (match["noun"] or "").rstrip(" \t_#")
    start, end = match.span()
    opens = "[" in before and "]" not in close
    if opens and (")" in close or not opens_list(match.string, end, kind)):
        opens, before = False, ""  # "[2 dogs]", "[3)]": prose in brackets
        brackets.is_open = brackets.has_words = True
        start, end = match.start("noun" if noun and not match["inner"] else "identifier"), match.end("identifier")
    elif "(" in before and "]" in close:
        start, end, close = match.start("noun" if noun else "identifier"), match.end("identifier"), ""
        brackets.is_open = False
    if "(" in before or (")" in close and "]" not in close):
        brackets.has_words = True
    closes = "]" in close and not (brackets.is_open and brackets.has_words)
    spelled = match["identifier"].partition(".")[0]
    is_lower = kind == "alpha" and spelled.islower()
    is_bracketed = "[" in before or closes
    is_marked = brackets.is_list or is_bracketed or (len(noun) > 1 and not is_lower)
    name = spelled.upper() if kind == "alpha" else spelled
    if kind == "numeric" and len(spelled) <= _MAX_DIGITS:
        name = str(int(spelled))
    brackets.is_list = (brackets.is_list or opens or noun[-1:] in ("s", "S")) and "]" not in close
    brackets.has_words |= is_lower and not is_marked
    if "]" in close:
        brackets.is_open = False
    return Token("name", name, max(start - 1, 0), end - 1, is_marked, is_lower, is_bracketed)


def opens_list(text: str, end: int, kind: IdentifierKind) -> bool:
    """Whether brackets that start with an identifier ending here contain only identifiers."""
    if not _LIST_GOES_ON.match(text, end):
        return False
    closing, nested = (text.find(bracket, end, end + _LIST_LENGTH) for bracket in "][")
    if closing < 0 or 0 <= nested < closing:
        return True
    return not holds_prose(text[end:closing], kind)


def holds_prose(inside: str, kind: IdentifierKind) -> bool:
    """Whether text between brackets is more than a list of identifiers: `[see page, 12]`, `args[1:]`, `[4,5-b]`."""
    return _PROSE[kind].search(_NO_PROSE.sub(" ", inside)) is not None


_LIST_LENGTH = 300
_LIST_GOES_ON = re.compile(r"""["'*_`.]{0,3}+\s*+(?:[\[\],;><=|&\\]|\Z)""")
_NO_PROSE = re.compile(rf"{NOUN}s?+|(?<!\w){SHORT_NOUN}|(?i:\band\b)|&[gl]t;")
_PROSE = {
    "numeric": re.compile(rf"[^\W\d_]|\d[:{GLUE}]\w|[:+±^%(){{}}]"),
    "alpha": re.compile(rf"[^\W\d_A-Z]|[A-Z][A-Z]|\w[:{GLUE}]\w|[:+±^%(){{}}]"),
}

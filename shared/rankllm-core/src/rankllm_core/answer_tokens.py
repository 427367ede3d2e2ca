"""Cuts a model's answer into identifiers, `>` signs and other words, in time linear in its length."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from rankllm_core.identifiers import IdentifierKind

TokenKind = Literal["name", "unknown", "join", "tie", "words", "line", "unread"]

MAX_PIECES = 100_000
"""Words, numbers and signs that are read of one answer: far more than a ranking needs, read in about a second."""


class Token(NamedTuple):
    """A piece of an answer. A named tuple, because a degenerate answer has hundreds of thousands of them."""

    kind: TokenKind
    """`name`: looks like an identifier; `unknown`: other text in brackets; `join`: `>`; `tie`: `=`;
    `words`: other text; `line`: a line break; `unread`: the rest of an answer that is too long."""
    name: str
    """Of a `name`: its canonical spelling (`[07]` is `7`, `[b]` is `B`); of others: the text."""
    start: int
    """Offset of the first character."""
    end: int
    """Offset past the last character."""
    is_marked: bool
    """Of a `name`: brackets or a noun (`[2]`, `11]`, `Passage 2`) say that it is one; bare numbers may be prose."""
    is_lower: bool = False
    """Of a `name`: a lower-case letter where the prompt had upper case."""


_NOUN = r"(?i:passage|document|doc|paragraph|candidate|item|text)"
# Glued to more text, a number or a letter is no identifier: 2nd, m2, 3.5, 10:30, 5%, 2019-01-02, I'm, A/B.
_UNGLUED = r"(?![^\W_]|%|[.:/'’-][^\W_])"
_IDENTIFIER = {
    "numeric": rf"\d++{_UNGLUED}(?![ \t]{{0,3}}+{_NOUN}s\b)",  # "20 passages" is a count
    "alpha": rf"[A-Za-z]{_UNGLUED}",
}
_MAX_DIGITS = 9
"""Longer numbers name no passage; int() on thousands of digits is slow, or refused."""

# Possessive quantifiers (++, *+) never give characters back, so that no answer can make the scan quadratic.
_GRAMMAR = r"""
    (?P<line>  \n [\ \t*\-]*+ (?: \d{1,3} [.)] (?=[\ \t]++[^\s>=]) )? )  # a line break, the number of a list item
  | (?P<join>  (?: (?: &gt; | =?>=? ) [^\S\n]*+ )+ (?: \d{1,3} [.)] (?=[\ \t]*+\[) )? )
  | (?P<tie>   =++ )
  | (?P<tag>   </?[A-Za-z|][\w|/:\-]{1,40}> | </[A-Za-z]> )                   # </answer>, <|im_end|>, </s>
  | (?P<remark>\( (?! \s*+ (?:NOUN[\ \t_#]{0,3}+)? IDENTIFIER \s*+ \) )        # (area 5 m²)
               (?= [^()>]* [^\W\d_]{2} ) [^()>]*+ \) )
  | (?P<name>  (?P<open> [\[(] \s*+ ["'*_`]{0,3}+ )?
               (?P<noun> NOUN s?+ [\ \t_#]{0,3}+ )?
               (?P<inner> \[ \s*+ )?
               (?P<identifier> IDENTIFIER )
               (?P<close> ["'*_`]{0,3}+ \s*+ [\])]++ )? )
  | (?P<other> \[ [^\[\]<>,;=\n]{1,40}+ \] )
  | (?P<fill>  (?: [^\S\n] | [\],;*_`"'|\#•\\\-–—+~] | &(?!gt;) | \. (?=[\ \t\r]*+(?:\n|\Z)) | (?i:and)\b )+ )
  | (?P<open_list> \[ )
  | (?P<word>  \w++ (?: ['’.%/\-] \w++ )* | [^\w\s\[\]<>=,;(&*_`"'|\#]++ | . )
"""
_PATTERN = {
    kind: re.compile(_GRAMMAR.replace("NOUN", _NOUN).replace("IDENTIFIER", identifier), re.VERBOSE | re.DOTALL)
    for kind, identifier in _IDENTIFIER.items()
}


def _spellings() -> dict[int, str | None]:
    """Other writings of the characters that the grammar knows."""
    table: dict[int, str | None] = {0xFF00 + code: chr(0x20 + code) for code in range(1, 0x5F)}  # full width: ［３］＞
    table |= {ord(character): ">" for character in "≻≽≥≫→⇒›»"}
    table |= {ord("【"): "[", ord("】"): "]", ord("〔"): "[", ord("〕"): "]"}
    table |= {0x2460 + i: f"[{i + 1}]" for i in range(20)} | {0x2776 + i: f"[{i + 1}]" for i in range(10)}  # ① ❶
    table |= {0x24B6 + i: f"[{chr(65 + i)}]" for i in range(26)}  # Ⓐ
    # Zero-width characters and marks of writing direction are not seen, and so not meant.
    return table | dict.fromkeys((0xFEFF, 0x2060, *range(0x200B, 0x2010), *range(0x202A, 0x202F)), None)


_SPELLINGS = _spellings()


def normalise(text: str) -> str:
    """Write full-width, circled and other forms of brackets, digits, letters, `>` in ASCII; drop what is invisible."""
    return text if text.isascii() else text.translate(_SPELLINGS)


def tokenize(text: str, kind: IdentifierKind) -> Iterator[Token]:
    """The tokens of an answer that went through `normalise`; punctuation and markup between them are dropped.

    Ends in a token of kind `unread` where there is more than can be read.
    """
    is_list_open = False  # `[2, 1, 3]` and `Passages 2, 1, 3` mark what stands between the ends, too
    in_words = False
    for count, match in enumerate(_PATTERN[kind].finditer("\n" + text)):
        found = match.lastgroup
        start, end = max(match.start() - 1, 0), match.end() - 1
        if count >= MAX_PIECES:
            yield Token("unread", "", start, len(text), False)
            return
        if found == "name":
            token, is_list_open = _name(match, kind, is_list_open=is_list_open)
            yield token
        elif found == "join":
            yield Token("join", ">", start, end, False)
        elif found == "tie":
            yield Token("tie", "=", start, end, False)
        elif found == "line":
            yield Token("line", "\n", start, end, False)
        elif found == "other":
            yield Token("unknown", match[0][1:-1].strip(), start, end, True)
        elif found in ("word", "remark"):
            is_list_open = False
            if not in_words:
                yield Token("words", "", start, end, False)
        in_words = found in ("word", "remark") or (in_words and found in ("fill", "tag", "open_list"))


def _name(match: re.Match[str], kind: IdentifierKind, *, is_list_open: bool) -> tuple[Token, bool]:
    """The token of an identifier, and whether a list is open after it."""
    before = (match["open"] or "") + (match["inner"] or "")
    close = match["close"] or ""
    noun = (match["noun"] or "").rstrip(" \t_#")
    opens = "[" in before and "]" not in close
    if opens and match.string[match.end() : match.end() + 2].lstrip()[:1].isalpha():
        opens, before = False, ""  # "[2 dogs": prose in brackets
    spelled = match["identifier"]
    is_lower = kind == "alpha" and spelled.islower()
    is_marked = is_list_open or "[" in before or "]" in close or (bool(noun) and not is_lower)
    name = spelled.upper() if kind == "alpha" else spelled
    if kind == "numeric" and len(spelled) <= _MAX_DIGITS:
        name = str(int(spelled))
    token = Token("name", name, max(match.start() - 1, 0), match.end() - 1, is_marked, is_lower)
    return token, (is_list_open or opens or noun[-1:] in ("s", "S")) and "]" not in close

"""The fenced blocks of a Markdown page, and the commands in those of a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared_files import REPOSITORY

FENCED = re.compile(r"^```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_SEPARATORS = {"|", "||", "&&", ";", "&"}


@dataclass(frozen=True)
class Block:
    """A fenced code block of a page."""

    where: str
    """PAGE:LINE of its first line."""
    language: str
    body: str


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCED.finditer(text):
        line = text.count("\n", 0, found.start("body")) + 1
        yield Block(f"{page.relative_to(REPOSITORY)}:{line}", found["language"], found["body"])


def shell_commands(script: str) -> Iterator[list[str]]:
    """The simple commands of a script as words: continued lines joined, split at pipes, redirections removed."""
    for line in re.sub(r"\\\n", " ", script).splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        is_target = False
        for word in lexer:
            if word in _SEPARATORS:
                yield words
                words = []
            elif set(word) <= set("<>&"):
                is_target = True
            elif not is_target:
                words.append(word)
            else:
                is_target = False
        yield words

"""Run a tokenizer's chat template within limits: it is a program that came with a model.

transformers compiles chat templates in a sandbox that keeps them from files and modules, but not from time and memory:
nested loops over `range(99999)` never end, and one line writes gigabytes. This module knows no jinja2: a template is
recognised by the name of its code, `<template>`.
"""

from __future__ import annotations

import functools
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType, TracebackType
from typing import Any

from rankllm_core.errors import ContractError

MAX_SECONDS = 10.0
"""A chat template may take so long for one prompt; honest ones take a millisecond."""
SPARE_CHARACTERS = 1_000_000
"""What a chat template may write beside the messages."""
REPEATS = 4
"""How often it may write each message."""
SPARE_BYTES = 1 << 30
"""Address space that it may take when it is tried out."""

_WHOSE = "the tokenizer's chat template"


class ChatTemplateLimitError(ContractError):
    """A chat template took too long or wrote too much."""


def rendered(write: Callable[[], Any], *, n_characters: int, is_short: bool = False) -> str:
    """The text that a chat template writes for messages of so many characters.

    is_short: the template is known to end (`ends_by_itself`), so that its time is not watched.
    Raises ChatTemplateLimitError, or ContractError for any other fault of the template, in one line. Errors from
    elsewhere pass.
    """
    try:
        with nullcontext() if is_short else _deadline():
            text = write()
    except ContractError:
        raise
    except Exception as error:
        if not _comes_from_template(error):
            raise
        if type(error).__name__ == "TemplateError":
            raise ContractError(f"{_WHOSE} refuses the prompt: {_one_line(error)}") from None
        if isinstance(error, MemoryError):
            raise ChatTemplateLimitError(f"{_WHOSE} needs too much memory; use another chat template") from None
        raise ContractError(f"{_WHOSE} fails: {type(error).__name__}: {_one_line(error)}") from None
    if not isinstance(text, str):
        raise ContractError(f"{_WHOSE} wrote {type(text).__name__}, expected text")
    if len(text) > (most := SPARE_CHARACTERS + REPEATS * n_characters):
        raise ChatTemplateLimitError(
            f"{_WHOSE} wrote {len(text):,} characters for messages of {n_characters:,}, expected at most {most:,}; "
            "use another chat template"
        )
    return text


def check_power(template: str) -> None:
    """Raise ChatTemplateLimitError for a template that raises to a power.

    `9 ** 9 ** 9` is one operation that no watch can interrupt, and templates of chats have no use for it.
    """
    for block in _BLOCK.findall(template):
        if _POWER.search(_STRING.sub("''", block)):
            raise ChatTemplateLimitError(
                f"{_WHOSE} raises a number to a power (**), which may never end; use another one"
            )


_BLOCK = re.compile(r"\{[{%](.*?)[%}]\}", re.DOTALL)
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_POWER = re.compile(r"[\w)\]'\"]\s*\*\*")


@functools.lru_cache(maxsize=16)
def ends_by_itself(template: str) -> bool:
    """Whether a template only loops over the messages, in no other loop, and calls and sets nothing.

    Then each of its lines runs at most once for each message, and nobody need watch its time, which takes longer than
    the work itself, some 0.1 ms a prompt. Templates that do anything else are watched, however harmless.
    """
    if len(template) > _LONGEST_PLAIN or _OPENING.search(_PLAIN_STEP.sub("", template)):
        return False
    loops = [step["loop"] for step in _PLAIN_STEP.finditer(template) if step["loop"]]
    return all(loop.startswith("for") for loop in loops[::2]) and all(loop == "endfor" for loop in loops[1::2])


_LONGEST_PLAIN = 5_000
"""Characters of a template that may be plain; those that do little are short."""
_VALUE = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[\w\s=!+~.\[\]-])*"""
"""Texts, names, their parts, comparisons and sums: neither brackets that call, nor filters, nor products."""
_TAG = rf"(?:(?P<loop>for\s+\w+\s+in\s+messages|endfor)|else|endif)\s*[-+]?|(?:if|elif)\b{_VALUE}"
_PLAIN_STEP = re.compile(rf"(?<!\{{)\{{(?:\{{{_VALUE}\}}|%[-+]?\s*(?:{_TAG})%)\}}", re.DOTALL)
_OPENING = re.compile(r"\{[{%#]")


@contextmanager
def limited_memory() -> Iterator[None]:
    """Let this process take SPARE_BYTES more, where the system can limit it.

    For trying out a template while a model is loaded: threads that work beside it share the limit.
    """
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as stream:
            used = int(stream.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    least = min(limit for limit in (used + SPARE_BYTES, soft, hard) if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (least, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


_WITHOUT_LOOPS = frozenset(
    {
        "abc",
        "collections",
        "collections.abc",
        "jinja2.environment",
        "jinja2.runtime",
        "jinja2.sandbox",
        "transformers.tokenization_utils_base",
        "transformers.utils.chat_template_utils",
    }
)
"""Modules behind every template with no loop that a template can make long, but over what it calls or the messages."""


@contextmanager
def _deadline() -> Iterator[None]:
    """Raise ChatTemplateLimitError inside a template that is still running after MAX_SECONDS.

    Watches every line of the template and of what it calls, in this thread alone; of the modules in `_WITHOUT_LOOPS`,
    where an honest template spends most of its time, every call.
    """
    end = time.monotonic() + MAX_SECONDS
    clock = time.monotonic

    def watch(frame: FrameType, event: str, argument: object) -> Any:
        if clock() > end:
            raise ChatTemplateLimitError(
                f"{_WHOSE} takes more than {MAX_SECONDS:g} s for one prompt; use another chat template"
            )
        return None if event == "call" and frame.f_globals.get("__name__") in _WITHOUT_LOOPS else watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


def _comes_from_template(error: Exception) -> bool:
    if type(error).__module__.startswith("jinja2"):
        return True
    step: TracebackType | None = error.__traceback__
    while step is not None:
        frame = step.tb_frame
        if frame.f_code.co_filename == "<template>" or str(frame.f_globals.get("__name__")).startswith("jinja2"):
            return True
        step = step.tb_next
    return False


def _one_line(error: Exception) -> str:
    line = " ".join(str(error).split())
    shown = line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in shown) or "no reason given"


_LONGEST = 200

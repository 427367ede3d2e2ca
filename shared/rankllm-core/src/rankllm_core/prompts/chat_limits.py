"""Resource limits for a tokenizer's chat template, which is a program that came with a model.

transformers compiles chat templates in a sandbox that blocks files and modules, but limits neither time nor memory:
nested loops over `range(99999)` never end, and one line can write gigabytes. This module does not import jinja2:
template code is recognized by its file name, `<template>`.
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
"""Maximum time of a chat template for one prompt; benign ones take a millisecond."""
SPARE_CHARACTERS = 1_000_000
"""Characters that a chat template may write in addition to the messages."""
REPEATS = 4
"""How often it may write each message."""
SPARE_BYTES = 1 << 30
"""Additional address space allowed when it is first tried."""

_WHOSE = "the tokenizer's chat template"


class ChatTemplateLimitError(ContractError):
    """A chat template took too long or wrote too much."""


def rendered(write: Callable[[], Any], *, n_characters: int, is_short: bool = False) -> str:
    """Return the text that a chat template writes for messages with this many characters.

    is_short: the template is known to terminate (`ends_by_itself`), so its time is not monitored.
    Raises ChatTemplateLimitError, or ContractError for any other error of the template. Other errors propagate.

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
            raise ContractError(f"{_WHOSE} rejects the prompt: {_one_line(error)}") from None
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
    """Raise ChatTemplateLimitError for a template that uses exponentiation.

    `9 ** 9 ** 9` is a single operation that cannot be interrupted, and chat templates have no use for it.
    """
    for block in _BLOCK.findall(template):
        if _POWER.search(_STRING.sub("''", block)):
            raise ChatTemplateLimitError(
                f"{_WHOSE} uses exponentiation (**), which may not terminate; use another chat template"
            )


_BLOCK = re.compile(r"\{[{%](.*?)[%}]\}", re.DOTALL)
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_POWER = re.compile(r"[\w)\]'\"]\s*\*\*")


@functools.lru_cache(maxsize=16)
def ends_by_itself(template: str) -> bool:
    """Whether a template only loops over the messages, without nested loops, calls or assignments.

    Then each of its lines runs at most once per message, and its time need not be monitored, which would take longer
    than the work itself (about 0.1 ms per prompt). All other templates are monitored, however harmless.
    """
    if len(template) > _LONGEST_PLAIN or _OPENING.search(_PLAIN_STEP.sub("", template)):
        return False
    loops = [step["loop"] for step in _PLAIN_STEP.finditer(template) if step["loop"]]
    return all(loop.startswith("for") for loop in loops[::2]) and all(loop == "endfor" for loop in loops[1::2])


_LONGEST_PLAIN = 5_000
"""Maximum length of a template that may count as plain."""
_VALUE = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[\w\s=!+~.\[\]-])*"""
"""Strings, names, attributes, comparisons and sums; no calls, filters or products."""
_TAG = rf"(?:(?P<loop>for\s+\w+\s+in\s+messages|endfor)|else|endif)\s*[-+]?|(?:if|elif)\b{_VALUE}"
_PLAIN_STEP = re.compile(rf"(?<!\{{)\{{(?:\{{{_VALUE}\}}|%[-+]?\s*(?:{_TAG})%)\}}", re.DOTALL)
_OPENING = re.compile(r"\{[{%#]")


@contextmanager
def limited_memory() -> Iterator[None]:
    """Limit this process to SPARE_BYTES more memory, if the system supports it.

    Used to try a template when a model is loaded; concurrent threads share the limit.
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
"""Modules used by every template that have no loops a template can lengthen, except over its calls or the messages."""


@contextmanager
def _deadline() -> Iterator[None]:
    """Raise ChatTemplateLimitError inside a template that is still running after MAX_SECONDS.

    Traces every line of the template and of what it calls, in this thread only; in the modules of `_WITHOUT_LOOPS`,
    where a benign template spends most of its time, only every call.
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

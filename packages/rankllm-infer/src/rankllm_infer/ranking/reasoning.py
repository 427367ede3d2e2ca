"""Tells an answer from reasoning that never came to one: words of a thought are no ranking."""

from __future__ import annotations

import re

from rankllm_core.answers.reader import ReadAnswer, read_answer
from rankllm_core.prompts.guesses import guess_reasoning
from rankllm_core.prompts.template import ListwiseTemplate
from rankllm_infer.engines.base import Answer, Prompt

_NAMES = "think|thinking|thought|reasoning"
_OPEN = re.compile(rf"<(?:{_NAMES})>|\[think\]", re.IGNORECASE)
_CLOSE = re.compile(rf"</(?:{_NAMES})>|\[/think\]", re.IGNORECASE)
_OPENED_BY_PROMPT = re.compile(rf"(?:{_OPEN.pattern})\s*\Z", re.IGNORECASE)
_LONGEST_OPENING = 100
"""Characters at a prompt's end in which an opened thought is looked for."""
_ANSWER = re.compile(r"<answer>", re.IGNORECASE)
_ANSWERED = re.compile(r"</answer>", re.IGNORECASE)


def reasons_first(template: ListwiseTemplate, system_message: str | None) -> bool:
    """Whether a prompt has the model reason in words before it ranks inside `<answer>`.

    system_message: what is used in place of the template's own; None for that.
    """
    if system_message is None:
        return bool(template.reasoning)
    return guess_reasoning(system_message, template.suffix)


def read_truncated(answer: Answer, prompt: Prompt, *, reasons_first: bool) -> ReadAnswer:
    """Read an answer that ended where its tokens did: as any other, unless the model had not begun to answer."""
    labels = prompt.identifiers
    if is_cut_in_reasoning(answer, prompt, reasons_first=reasons_first):
        defects = (f"reasoning was cut at {_n_tokens(answer, prompt)}",)
        return ReadAnswer(order=tuple(range(len(labels))), status="fallback", defects=defects)
    read = read_answer(answer.text, labels)
    if not read.defects or not _ANSWER.search(answer.text) or _ANSWERED.search(answer.text):
        return read
    defects = (*read.defects, f"the answer was cut at {_n_tokens(answer, prompt)}")
    return ReadAnswer(order=read.order, status=read.status, defects=defects, n_ranked=read.n_ranked)


def is_cut_in_reasoning(answer: Answer, prompt: Prompt, *, reasons_first: bool) -> bool:
    """Whether the model ran out of tokens before it began to answer.

    That is: generation was cut, and a thought is not closed (in the answer, or opened by the prompt), nothing was
    written but what a server keeps to itself, or `<answer>` was asked for and not reached.
    """
    if prompt.read != "text" or not answer.is_truncated:
        return False
    *thoughts, rest = _CLOSE.split(answer.text)
    if _ANSWERED.search(rest):
        return False
    is_open = _OPEN.search(rest) or (not thoughts and _OPENED_BY_PROMPT.search(prompt.text[-_LONGEST_OPENING:]))
    return bool(is_open) or not rest.strip() or (reasons_first and not _ANSWER.search(rest))


def _n_tokens(answer: Answer, prompt: Prompt) -> str:
    """Not all servers count what they generated."""
    return f"{answer.usage.completion_tokens or prompt.max_new_tokens} tokens"

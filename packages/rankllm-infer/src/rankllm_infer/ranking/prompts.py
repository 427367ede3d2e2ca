"""Writing prompts and reading answers: the form an engine takes, token counts, and the expected kind of answer.

Tokens are counted with the model's tokenizer, or estimated for a server.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rankllm_core.answers.reader import ReadAnswer, read_answer
from rankllm_core.card import ListwiseCard
from rankllm_core.errors import ConfigError, ContractError
from rankllm_core.prompts.chat import ChatEncoder
from rankllm_core.prompts.template import ListwiseTemplate, Message, Span
from rankllm_core.prompts.template_text import guess_reasoning
from rankllm_core.prompts.tokens import SafeTokenizer, single_ids
from rankllm_core.types import identifiers
from rankllm_infer.engines.base import Answer, Prompt, Read
from rankllm_infer.ranking.settings import RankingSettings

OPENING = "["
"""Text that FIRST puts before the identifier to be read."""
TOKENS_PER_MESSAGE = 6
"""Estimate of what a chat template adds per turn, such as `<|start_header_id|>user<|end_header_id|>` and blank
lines."""
TOKENS_PER_PROMPT = 32
"""Estimate of BOS, the start of the model's turn, and the system text that some chat templates add."""

# # A word, or one non-space character; spaces join the word that follows them.
_PIECE = re.compile(r"[A-Za-z]+|[^A-Za-z ]")
# # Counted in thirteenths of a token: a word costs one token per 3.25 letters, at least one.
_UNITS_PER_TOKEN = 13
_UNITS_PER_LETTER = 4
_TOKENS_OF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4}

_OPENED_BY_TEMPLATE = ("<think>", "<thinking>")
_THOUGHT_NAMES = "think|thinking|thought|reasoning"
_THOUGHT_BEGINS = re.compile(rf"<(?:{_THOUGHT_NAMES})>|\[think\]", re.IGNORECASE)
_THOUGHT_ENDS = re.compile(rf"</(?:{_THOUGHT_NAMES})>|\[/think\]", re.IGNORECASE)
_OPENED_BY_PROMPT = re.compile(rf"(?:{_THOUGHT_BEGINS.pattern})\s*\Z", re.IGNORECASE)
_LONGEST_OPENING = 100
"""Number of characters at a prompt's end that are searched for an opened thought."""
_ANSWER_BEGINS = re.compile(r"<answer>", re.IGNORECASE)
_ANSWER_ENDS = re.compile(r"</answer>", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPrompt:
    """Prompt in the form that an engine takes."""

    text: str
    n_tokens: int
    token_ids: tuple[int, ...] = ()
    """For engines that take ids; empty for chat servers."""
    messages: tuple[Message, ...] = ()
    """For chat servers; a final turn of role `assistant` is one that the model continues."""


class PromptWriter(Protocol):
    """Writes prompts with the model's tokenizer, or without it."""

    def write(self, messages: Sequence[Message], *, opening: str = "") -> WrittenPrompt:
        """Return the prompt up to the model's turn, which starts with `opening`."""

    def count(self, text: str) -> int:
        """Return the number of tokens of a text on its own."""


class TokenPromptWriter:
    """Writes prompts with the model's own tokenizer."""

    def __init__(self, encoder: ChatEncoder) -> None:
        self._encoder = encoder
        self.safe = encoder.safe

    def write(self, messages: Sequence[Message], *, opening: str = "") -> WrittenPrompt:
        """Return the prompt with its token ids."""
        prompt = self._encoder.encode(messages, opening=opening)
        return WrittenPrompt(text=prompt.text, token_ids=prompt.token_ids, n_tokens=len(prompt.token_ids))

    def count(self, text: str) -> int:
        """Return the number of tokens of a text on its own."""
        return len(self._encoder.safe.encode(text))


class MessagePromptWriter:
    """Writes prompts for a chat server with an unknown tokenizer: token counts are estimated conservatively."""

    def write(self, messages: Sequence[Message], *, opening: str = "") -> WrittenPrompt:
        """Return the turns; an opening becomes an assistant turn that the server is asked to continue."""
        if opening:
            messages = (*messages, Message("assistant", (Span(opening),)))
        return WrittenPrompt(
            text="\n".join(f"{message.role}: {message.content}" for message in messages),
            messages=tuple(messages),
            n_tokens=estimate_tokens(messages),
        )

    def count(self, text: str) -> int:
        """Return the estimated number of tokens of a text on its own."""
        return estimate_text_tokens(text)


def estimate_tokens(messages: Sequence[Message]) -> int:
    """Estimate the number of tokens of a chat prompt, erring on the high side.

    Each word of Latin letters counts one token per 3.25 letters, at least one; each digit, punctuation mark and line
    break one; other characters by their size in UTF-8 (2 bytes one, 3 bytes two, 4 bytes four); each turn 6; each
    prompt 32. Measured with Llama 2's tokenizer, which splits text more finely than later ones, the estimate for
    windows of 20 passages from six collections (medical, scientific, web, code, Wikipedia tables) is 1.02 to 1.23 times
    the actual number.
    """
    return TOKENS_PER_PROMPT + sum(TOKENS_PER_MESSAGE + estimate_text_tokens(message.content) for message in messages)


def estimate_text_tokens(text: str) -> int:
    """Estimate the number of tokens of a text on its own, without the overhead of a turn."""
    total = sum(_piece_cost(match[0]) for match in _PIECE.finditer(text))
    return -(-total // _UNITS_PER_TOKEN)


def _piece_cost(piece: str) -> int:
    """Return the cost in thirteenths of a token. piece: a word of ASCII letters, or one character."""
    if piece[0].isascii():
        return max(_UNITS_PER_TOKEN, _UNITS_PER_LETTER * len(piece))
    return _UNITS_PER_TOKEN * _TOKENS_OF_BYTES[len(piece.encode("utf-8", "surrogatepass"))]


def planned_read(card: ListwiseCard, settings: RankingSettings) -> Read:
    """Return how answers are read, as far as determined by card and settings; the chat template may still change it.

    Raises ConfigError if only the top of a window is to be decoded, which free decoding cannot do.
    """
    if card.answer == "first-token":
        return "first-token"
    has_thoughts = reasons_first(card.template, settings.system_message)
    if has_thoughts and settings.decode_top_k is not None:
        raise ConfigError(
            f"--decode-top-k has no effect with template {card.template.name}, whose answers start with reasoning; "
            "leave it out"
        )
    return "text" if settings.free_decoding or has_thoughts else "permutation"


def reasons_first(template: ListwiseTemplate, system_message: str | None) -> bool:
    """Return whether a prompt makes the model reason in words before it ranks inside `<answer>`.

    system_message: replacement for the template's own; None to use the template's.
    """
    if system_message is None:
        return bool(template.reasoning)
    return guess_reasoning(system_message, template.suffix)


def permutation_sample(card: ListwiseCard, writer: PromptWriter) -> Prompt:
    """Return a short prompt whose answer is a permutation of a full window, to be checked when the engine starts."""
    written = writer.write((Message("user", (Span("x"),)),))
    return Prompt(
        text=written.text,
        read="permutation",
        identifiers=window_labels(card, card.window_size),
        form=card.template.answer_form,
    )


def opens_thinking(sample: Prompt, settings: RankingSettings) -> bool:
    """Return whether the chat template makes the model reason first, so that answers must be decoded freely.

    Raises ConfigError if only the top of a window is to be decoded.
    """
    if not sample.text.rstrip().endswith(_OPENED_BY_TEMPLATE):
        return False
    if settings.decode_top_k is not None:
        raise ConfigError("--decode-top-k has no effect: the chat template makes the model reason first; leave it out")
    return True


def check_identifiers(safe: SafeTokenizer, card: ListwiseCard) -> None:
    """Raise ContractError if an identifier of a full window is more than one token, since FIRST reads a single
    token."""
    fits = 0
    try:
        for label in window_labels(card, card.window_size):
            single_ids(safe, [label], after=OPENING)
            fits += 1
    except ContractError as error:
        way_out = (
            f"--window-size {fits} or less (with a --stride no larger)" if fits else "generation (--no-use-logits)"
        )
        other = "--use-alpha, or " if card.identifiers == "numeric" else ""
        raise ContractError(f"FIRST reads one token per identifier: {error}; use {other}{way_out}") from None


def window_labels(card: ListwiseCard, n: int) -> tuple[str, ...]:
    """Return the identifiers of a window of n passages."""
    return identifiers("alpha" if card.identifiers == "alpha" else "numeric", n)


def read_truncated(answer: Answer, prompt: Prompt, *, reasons_first: bool) -> ReadAnswer:
    """Read a truncated answer like any other, unless the model had not started to answer yet."""
    labels = prompt.identifiers
    if is_cut_in_reasoning(answer, prompt, reasons_first=reasons_first):
        defects = (f"reasoning was cut at {_n_tokens(answer, prompt)}",)
        return ReadAnswer(order=tuple(range(len(labels))), status="fallback", defects=defects)
    read = read_answer(answer.text, labels)
    if not read.defects or not _ANSWER_BEGINS.search(answer.text) or _ANSWER_ENDS.search(answer.text):
        return read
    defects = (*read.defects, f"the answer was cut at {_n_tokens(answer, prompt)}")
    return ReadAnswer(order=read.order, status=read.status, defects=defects, n_ranked=read.n_ranked)


def is_cut_in_reasoning(answer: Answer, prompt: Prompt, *, reasons_first: bool) -> bool:
    """Return whether the model ran out of tokens before it started to answer.

    This is the case if generation was truncated and a thought is still open (in the answer or opened by the prompt),
    nothing was written except what a server keeps to itself, or `<answer>` was requested but not reached.
    """
    if prompt.read != "text" or not answer.is_truncated:
        return False
    *thoughts, rest = _THOUGHT_ENDS.split(answer.text)
    if _ANSWER_ENDS.search(rest):
        return False
    is_open = _THOUGHT_BEGINS.search(rest) or (
        not thoughts and _OPENED_BY_PROMPT.search(prompt.text[-_LONGEST_OPENING:])
    )
    return bool(is_open) or not rest.strip() or (reasons_first and not _ANSWER_BEGINS.search(rest))


def _n_tokens(answer: Answer, prompt: Prompt) -> str:
    """Format the number of generated tokens, which not all servers report."""
    return f"{answer.usage.completion_tokens or prompt.max_new_tokens} tokens"

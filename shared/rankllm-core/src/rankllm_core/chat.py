"""From chat messages to the ids a model reads, in training and in inference alike."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rankllm_core.config import one_of
from rankllm_core.errors import ContractError
from rankllm_core.template import CHAT_LAYOUTS, Message, Span
from rankllm_core.text import fix_text
from rankllm_core.tokens import MASK, SafeTokenizer, clean

BOS_RULES = ("single", "double")
"""`single`: one BOS, from the chat template or the tokenizer. `double`: the chat template's and the tokenizer's, as the
published castorini checkpoints were trained and served (reference section 2.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    """A prompt as text and as ids."""

    text: str
    token_ids: tuple[int, ...]


class ChatEncoder:
    """Writes messages in a chat layout and tokenises them with foreign text kept text.

    layout: one of CHAT_LAYOUTS, or None for the tokenizer's own chat template. bos: one of BOS_RULES.
    repair_text: run ftfy over the whole prompt, as the listwise originals do in training and inference.
    """

    def __init__(
        self, tokenizer: Any, *, layout: str | None = None, bos: str = "single", repair_text: bool = True
    ) -> None:
        one_of(bos, BOS_RULES, where="bos")
        if layout is not None:
            one_of(layout, CHAT_LAYOUTS, where="chat_layout")
        elif not getattr(tokenizer, "chat_template", None):
            raise ContractError(
                "the tokenizer has no chat template; give the prompt template a chat_layout "
                f"({', '.join(CHAT_LAYOUTS)}) or use a chat model"
            )
        self.safe = SafeTokenizer(tokenizer)
        self._tokenizer = tokenizer
        self._layout = layout
        self._bos = bos
        self._repair = fix_text if repair_text else str

    def encode(self, messages: Sequence[Message], *, opening: str = "") -> EncodedPrompt:
        """The prompt up to the model's turn, which begins with `opening` (`[` for FIRST)."""
        text = self._guarded(messages) + opening
        ids = self.safe.encode_prompt(text, add_special_tokens=self._adds_special_tokens(text))
        return EncodedPrompt(text=text.replace(MASK, ""), token_ids=tuple(ids))

    def encode_answered(self, messages: Sequence[Message], *, answer: str) -> tuple[tuple[int, ...], int]:
        """The ids of the prompt with its whole answer, and how many of them are the prompt's: those of `encode`.

        answer: holds no control token. Raises ContractError where the tokenizer joins prompt and answer.
        """
        text = self._guarded(messages)
        ids, n_prompt = self.safe.encode_answered(text, answer, add_special_tokens=self._adds_special_tokens(text))
        return tuple(ids), n_prompt

    def _adds_special_tokens(self, text: str) -> bool:
        bos = self._tokenizer.bos_token
        return self._bos == "double" or not (bos and text.startswith(bos))

    def _guarded(self, messages: Sequence[Message]) -> str:
        """The prompt's text, with a MASK inside every control token that a query or a passage holds."""
        messages = [_map_untrusted(message, lambda text: clean(text).replace(MASK, "\ufffd")) for message in messages]
        meant = self.safe.control_in(self._repair(self._write([_map_untrusted(m, lambda _: "x") for m in messages])))
        text = self._repair(self._write(messages))
        if self.safe.control_in(text) == meant:
            return text
        masked = [_map_untrusted(m, lambda t: self.safe.mask_control(self._repair(t))) for m in messages]
        text = self._repair(self._write(masked))
        if self.safe.control_in(text) == meant:
            return text
        # Repairing the whole prompt made a control token out of pieces: break every character one can begin with.
        broken = [_map_untrusted(m, lambda t: self.safe.mask_control(_break_markup(self._repair(t)))) for m in messages]
        text = self._repair(self._write(broken))
        return text if self.safe.control_in(text) == meant else self._write(broken)

    def _write(self, messages: Sequence[Message]) -> str:
        if self._layout is not None:
            unknown = {message.role for message in messages} - {"system", "user", "assistant"}
            if unknown:
                raise ContractError(
                    f"chat layout {self._layout!r} has no role {sorted(unknown)[0]!r}; expected user or assistant"
                )
            return _LAYOUTS[self._layout](messages)
        return self._apply(messages if self._takes_system else _merge_system(messages))

    @functools.cached_property
    def _takes_system(self) -> bool:
        """Whether the chat template has a system role. Some mention it only to refuse it."""
        if "system" not in self._tokenizer.chat_template:
            return False
        try:
            self._apply([Message("system", (Span("x"),)), Message("user", (Span("x"),))])
        except ContractError:
            return False
        return True

    def _apply(self, messages: Sequence[Message]) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
                )
            )
        except Exception as error:
            # Core knows no jinja2: whatever a chat template raises comes from there.
            if not type(error).__module__.startswith("jinja2"):
                raise
            raise ContractError(f"the tokenizer's chat template refuses the prompt: {error}") from None


def _map_untrusted(message: Message, change: Any) -> Message:
    spans = tuple(Span(change(s.text), untrusted=True) if s.untrusted else s for s in message.spans)
    return Message(message.role, spans)


def _break_markup(text: str) -> str:
    for character in "<[{&＜［｛＆":
        text = text.replace(character, character + MASK)
    return text


def _merge_system(messages: Sequence[Message]) -> Sequence[Message]:
    """Put the system turn before the first user turn, for chat templates without one.

    Source: castorini/rank_llm training (reference section 2.2): `system + "\\n " + user`.
    """
    if len(messages) < 2 or messages[0].role != "system":
        return messages
    system, first, *rest = messages
    return [Message(first.role, (*system.spans, Span("\n "), *first.spans)), *rest]


def _vicuna(messages: Sequence[Message]) -> str:
    """Vicuna v1.1 as rank_llm writes it for RankVicuna (reference section 3.1)."""
    forms = {"system": "{} ", "user": "USER: {} ", "assistant": "ASSISTANT: {}</s>"}
    return "".join(forms[m.role].replace("{}", m.content) for m in messages) + "ASSISTANT:"


def _chatml(messages: Sequence[Message]) -> str:
    turns = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in messages)
    return turns + "<|im_start|>assistant\n"


def _plain_text(messages: Sequence[Message]) -> str:
    return "\n".join(m.content for m in messages) + "\n"


_LAYOUTS = {"vicuna": _vicuna, "chatml": _chatml, "plain": _plain_text}

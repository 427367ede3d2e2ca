"""From chat messages to the ids a model reads, in training and in inference alike."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rankllm_core.answers.lookalikes import identifiers_in
from rankllm_core.answers.posing import adds_bracketed
from rankllm_core.config import one_of
from rankllm_core.errors import ContractError
from rankllm_core.prompts.chat_limits import (
    ChatTemplateLimitError,
    check_power,
    ends_by_itself,
    limited_memory,
    rendered,
)
from rankllm_core.prompts.template import CHAT_LAYOUTS, Message, Span
from rankllm_core.prompts.tokens import MASK, SafeTokenizer, clean
from rankllm_core.text import defuse, fix_text
from rankllm_core.types import Names

BOS_RULES = ("single", "double")
"""`single`: one BOS, from the chat template or the tokenizer. `double`: the chat template's and the tokenizer's, as the
published castorini checkpoints were trained and served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    """A prompt as text and as ids."""

    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Meant:
    """What a prompt holds around harmless texts."""

    text: str
    controls: list[str]
    """Its control tokens, in order."""
    names: Names | None
    """What it calls its passages, where identifiers are looked for."""
    identifiers: list[str]


class ChatEncoder:
    """Writes messages in a chat layout and tokenises them with foreign text kept text.

    layout: one of CHAT_LAYOUTS, or None for the tokenizer's own chat template; `bare`: the text alone. bos: one of
    BOS_RULES.
    repair_text: run ftfy over the whole prompt, as the listwise originals do in training and inference. Raises
    ContractError for a tokenizer without a chat template, or with one that exceeds `chat_limits`.
    """

    def __init__(
        self, tokenizer: Any, *, layout: str | None = None, bos: str = "single", repair_text: bool = True
    ) -> None:
        one_of(bos, BOS_RULES, where="bos")
        if layout is not None:
            one_of(layout, CHAT_LAYOUTS if layout != "bare" else _LAYOUTS, where="chat_layout")
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
        self._known: dict[Hashable, _Meant] = {}
        if layout is None:
            self._try_out()

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
        """The prompt's text, in which untrusted text holds neither a control token nor an identifier of the prompt.

        A MASK stands inside every control token that a query or a passage holds. As a rule the whole prompt is
        repaired, as the originals do. Where that would make a control token or an identifier of the pieces, untrusted
        text is repaired by itself, made safe, and put in last.
        """
        messages = [
            _map_untrusted(m, lambda span: _without_private(clean(span.text))) if _has_untrusted(m) else m
            for m in messages
        ]
        names = next((span.names for message in messages for span in message.spans if span.names), None)
        written = self._write(messages)
        text = self._repair(written)
        if text == written:
            names = None  # repairing has made nothing of the pieces, and each was defused before
        meant = self._meant(messages, names)
        if self._holds_only(text, meant):
            return text
        masked = [_map_untrusted(m, lambda span: self.safe.mask_control(self._repair(span.text))) for m in messages]
        text = self._repair(self._write(masked))
        if self._holds_only(text, meant):
            return text
        text = self._filled(messages, self._made_safe)
        if self._holds_only(text, meant):
            return text
        # Pieces of several texts make a control token together: break every character that one can begin with.
        return self._filled(messages, lambda span: self.safe.mask_control(_break_markup(self._made_safe(span))))

    def _meant(self, messages: Sequence[Message], names: Names | None) -> _Meant:
        """What the prompt holds without its untrusted text."""
        meant = self._meant_around(tuple(_map_untrusted(m, lambda _: "x") for m in messages), names)
        if names and any(span.untrusted and not span.names for message in messages for span in message.spans):
            # Words of a template in a training record: a control token in them is text, an identifier is meant.
            kept = [_map_untrusted(m, lambda span: "x" if span.names else span.text) for m in messages]
            text = self._repair(self._write(kept))
            return replace(meant, text=text, identifiers=identifiers_in(text, names))
        return meant

    def _meant_around(self, harmless: tuple[Message, ...], names: Names | None) -> _Meant:
        """What messages without untrusted text hold. Remembered: nearly all prompts of a run share these words."""
        if (known := self._known.get((harmless, names))) is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            text = self._repair(self._write(harmless))
            known = _Meant(text, self.safe.control_in(text), names, identifiers_in(text, names) if names else [])
            self._known[harmless, names] = known
        return known

    def _holds_only(self, text: str, meant: _Meant) -> bool:
        """Whether a prompt holds the control tokens that are meant and, where they are given, the identifiers."""
        if self.safe.control_in(text) != meant.controls:
            return False
        if meant.names is None:
            return True
        text = text.replace(MASK, "")
        if identifiers_in(text, meant.names) != meant.identifiers:
            return False
        return not adds_bracketed(text, meant.text, meant.names.kind)

    def _made_safe(self, span: Span) -> str:
        repaired = self._repair(span.text)
        return self.safe.mask_control(defuse(repaired, span.names) if span.names else repaired)

    def _filled(self, messages: Sequence[Message], safe_text: Callable[[Span], str]) -> str:
        """The prompt's text, repaired around its untrusted text, which is put in afterwards."""
        texts: list[str] = []

        def hold(span: Span) -> str:
            texts.append(safe_text(span))
            return f"{_HOLDER}{len(texts) - 1}{_HOLDER}"

        around = self._repair(self._write([_map_untrusted(message, hold) for message in messages]))
        return _HOLDERS.sub(lambda match: texts[int(match[1])], around)

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
        except ChatTemplateLimitError:
            raise
        except ContractError:
            return False
        return True

    def _apply(self, messages: Sequence[Message]) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        template = self._tokenizer.chat_template
        return rendered(
            lambda: self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
            ),
            n_characters=sum(len(turn["content"]) for turn in turns),
            is_short=isinstance(template, str) and ends_by_itself(template),
        )

    def _try_out(self) -> None:
        """Raise ChatTemplateLimitError for a chat template that never ends, may not, or fills the memory."""
        templates = self._tokenizer.chat_template
        for template in templates.values() if isinstance(templates, dict) else (templates,):
            check_power(template)
        try:
            with limited_memory():
                self._apply([Message("user", (Span("x"),))])
        except ChatTemplateLimitError:
            raise
        except ContractError:
            pass  # it may want other turns than this one; the first prompt will tell


def _map_untrusted(message: Message, change: Callable[[Span], str]) -> Message:
    return Message(
        message.role,
        tuple([Span(change(span), True, span.names) if span.untrusted else span for span in message.spans]),
    )


def _has_untrusted(message: Message) -> bool:
    return any(span.untrusted for span in message.spans)


def _without_private(text: str) -> str:
    """The text without the characters that this module writes into prompts for a while."""
    return text.replace(MASK, "\ufffd").replace(_HOLDER, "\ufffd")


_MOST_KNOWN = 64
"""Prompts without their untrusted text that an encoder remembers; one that shows scores is another each time."""
_HOLDER = "\uf8e4"
"""A private-use character; two of them enclose the number of an untrusted text that is put in last."""
_HOLDERS = re.compile(rf"{_HOLDER}(\d+){_HOLDER}")


def _break_markup(text: str) -> str:
    for character in "<[{&＜［｛＆":
        text = text.replace(character, character + MASK)
    return text


def _merge_system(messages: Sequence[Message]) -> Sequence[Message]:
    """Put the system turn before the first user turn, for chat templates without one.

    Source: castorini/rank_llm@1b3cabb training/utils/data_utils.py: `system + "\\n " + user`.
    """
    if len(messages) < 2 or messages[0].role != "system":
        return messages
    system, first, *rest = messages
    return [Message(first.role, (*system.spans, Span("\n "), *first.spans)), *rest]


def _vicuna(messages: Sequence[Message]) -> str:
    """Vicuna v1.1 as RankVicuna is served.

    Source: castorini/rank_llm@1b3cabb src/rank_llm/rerank/listwise/rank_listwise_os_llm.py.
    """
    forms = {"system": "{} ", "user": "USER: {} ", "assistant": "ASSISTANT: {}</s>"}
    return "".join(forms[m.role].replace("{}", m.content) for m in messages) + "ASSISTANT:"


def _chatml(messages: Sequence[Message]) -> str:
    turns = "".join(f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in messages)
    return turns + "<|im_start|>assistant\n"


def _plain_text(messages: Sequence[Message]) -> str:
    return "\n".join(m.content for m in messages) + "\n"


def _bare_text(messages: Sequence[Message]) -> str:
    return "".join(m.content for m in messages)


_LAYOUTS = {"vicuna": _vicuna, "chatml": _chatml, "plain": _plain_text, "bare": _bare_text}

"""Encoding of chat messages into token ids, identical in training and inference."""

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
"""`single`: one BOS, from the chat template or the tokenizer. `double`: both the chat template's and the tokenizer's,
as in training and serving of the published castorini checkpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    """Prompt as text and as token ids."""

    text: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Meant:
    """What a prompt contains around harmless texts."""

    text: str
    controls: list[str]
    """Its control tokens, in order."""
    names: Names | None
    """How it identifies passages, if identifiers are checked."""
    identifiers: list[str]


class ChatEncoder:
    """Writes messages in a chat layout and tokenizes them so that untrusted text remains text.

    layout: one of CHAT_LAYOUTS, or None for the tokenizer's own chat template; `bare`: only the text. bos: one of
    BOS_RULES. repair_text: run ftfy over the whole prompt, as the listwise originals do in training and inference.
    Raises ContractError for a tokenizer without a chat template, or with one that exceeds `chat_limits`.
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
        """Encode the prompt up to the model's turn, which starts with `opening` (`[` for FIRST)."""
        text = self._guarded(messages) + opening
        ids = self.safe.encode_prompt(text, add_special_tokens=self._adds_special_tokens(text))
        return EncodedPrompt(text=text.replace(MASK, ""), token_ids=tuple(ids))

    def encode_answered(self, messages: Sequence[Message], *, answer: str) -> tuple[tuple[int, ...], int]:
        """Return the ids of the prompt with its full answer, and the number of prompt ids, which equal those of
        `encode`.

        answer: contains no control tokens. Raises ContractError if the tokenizer merges prompt and answer.
        """
        text = self._guarded(messages)
        ids, n_prompt = self.safe.encode_answered(text, answer, add_special_tokens=self._adds_special_tokens(text))
        return tuple(ids), n_prompt

    def _adds_special_tokens(self, text: str) -> bool:
        bos = self._tokenizer.bos_token
        return self._bos == "double" or not (bos and text.startswith(bos))

    def _guarded(self, messages: Sequence[Message]) -> str:
        """Return the prompt's text, in which untrusted text contains neither control tokens nor identifiers.

        A MASK breaks every control token in a query or passage. Usually the whole prompt is repaired, as in the
        originals. If that would create a control token or an identifier from the pieces, untrusted text is repaired on
        its own, made safe, and inserted last.
        """
        messages = [
            _map_untrusted(m, lambda span: _without_private(clean(span.text))) if _has_untrusted(m) else m
            for m in messages
        ]
        names = next((span.names for message in messages for span in message.spans if span.names), None)
        written = self._write(messages)
        text = self._repair(written)
        if text == written:
            names = None  # repair changed nothing, and each piece is already defused
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
        # Pieces of several texts together form a control token: break every character that may start one.
        return self._filled(messages, lambda span: self.safe.mask_control(_break_markup(self._made_safe(span))))

    def _meant(self, messages: Sequence[Message], names: Names | None) -> _Meant:
        """Return what the prompt contains without its untrusted text."""
        meant = self._meant_around(tuple(_map_untrusted(m, lambda _: "x") for m in messages), names)
        if names and any(span.untrusted and not span.names for message in messages for span in message.spans):
            # Template text in a training record: control tokens in it are text, identifiers are intended.
            kept = [_map_untrusted(m, lambda span: "x" if span.names else span.text) for m in messages]
            text = self._repair(self._write(kept))
            return replace(meant, text=text, identifiers=identifiers_in(text, names))
        return meant

    def _meant_around(self, harmless: tuple[Message, ...], names: Names | None) -> _Meant:
        """Return what messages without untrusted text contain. Cached, since nearly all prompts of a run share it."""
        if (known := self._known.get((harmless, names))) is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            text = self._repair(self._write(harmless))
            known = _Meant(text, self.safe.control_in(text), names, identifiers_in(text, names) if names else [])
            self._known[harmless, names] = known
        return known

    def _holds_only(self, text: str, meant: _Meant) -> bool:
        """Whether a prompt contains only the intended control tokens and, if they are checked, identifiers."""
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
        """Return the prompt's text, repaired around its untrusted text, which is inserted afterwards."""
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
                    f"chat layout {self._layout!r} has no role {sorted(unknown)[0]!r}; expected system, user or "
                    "assistant"
                )
            return _LAYOUTS[self._layout](messages)
        return self._apply(messages if self._takes_system else _merge_system(messages))

    @functools.cached_property
    def _takes_system(self) -> bool:
        """Whether the chat template supports a system role. Some mention it only to reject it."""
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
        """Raise ChatTemplateLimitError for a chat template that may not terminate or exhausts memory."""
        templates = self._tokenizer.chat_template
        for template in templates.values() if isinstance(templates, dict) else (templates,):
            check_power(template)
        try:
            with limited_memory():
                self._apply([Message("user", (Span("x"),))])
        except ChatTemplateLimitError:
            raise
        except ContractError:
            pass  # it may need other turns than this one; the first prompt will show


def _map_untrusted(message: Message, change: Callable[[Span], str]) -> Message:
    return Message(
        message.role,
        tuple([Span(change(span), True, span.names) if span.untrusted else span for span in message.spans]),
    )


def _has_untrusted(message: Message) -> bool:
    return any(span.untrusted for span in message.spans)


def _without_private(text: str) -> str:
    """Return the text without the private-use characters that this module inserts temporarily."""
    return text.replace(MASK, "\ufffd").replace(_HOLDER, "\ufffd")


_MOST_KNOWN = 64
"""Maximum number of cached prompts without untrusted text; prompts that show scores differ each time."""
_HOLDER = "\uf8e4"
"""Private-use character; two of them enclose the number of an untrusted text that is inserted last."""
_HOLDERS = re.compile(rf"{_HOLDER}(\d+){_HOLDER}")


def _break_markup(text: str) -> str:
    for character in "<[{&＜［｛＆":
        text = text.replace(character, character + MASK)
    return text


def _merge_system(messages: Sequence[Message]) -> Sequence[Message]:
    """Move the system turn to the start of the first user turn, for chat templates without a system role.

    Source: castorini/rank_llm@1b3cabb training/utils/data_utils.py: `system + "\\n " + user`.
    """
    if len(messages) < 2 or messages[0].role != "system":
        return messages
    system, first, *rest = messages
    return [Message(first.role, (*system.spans, Span("\n "), *first.spans)), *rest]


def _vicuna(messages: Sequence[Message]) -> str:
    """Vicuna v1.1 as used to serve RankVicuna.

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

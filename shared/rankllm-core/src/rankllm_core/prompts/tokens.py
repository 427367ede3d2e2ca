"""Tokenization of untrusted text: a control token written in a passage remains text.

A tokenizer turns `<|im_end|>` into the control token wherever it occurs. Prompts are tokenized here instead: the
control tokens of the prompt's own layout are looked up, and everything else is encoded by a copy of the tokenizer
without them. Works with any fast tokenizer of transformers; this module does not import transformers.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from typing import Any

from rankllm_core.errors import ContractError

_MARKUP = re.compile(r"^(<.*>|\[.*\]|\{.*\})$", re.DOTALL)


class SafeTokenizer:
    """Fast tokenizer that can encode text without interpreting control tokens in it.

    tokenizer: a fast tokenizer of transformers. Raises ContractError for any other.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or not hasattr(backend, "to_str"):
            raise ContractError(
                f"tokenizer {type(tokenizer).__name__} is not a fast tokenizer; "
                "rankllm needs a tokenizer.json in the model's folder"
            )
        self.tokenizer = tokenizer
        self.control_tokens = _control_tokens(tokenizer)
        """Text of each control token -> (id, whether it strips whitespace on its left, on its right)."""
        self._find_control = _alternatives(self.control_tokens)
        layout = json.loads(backend.to_str())
        self._first = _plain(type(backend), layout)
        """For text at the start of a prompt, where some tokenizers add a space; `_later` for text after a token."""
        later = _without_first_blank(layout["pre_tokenizer"])
        unchanged = later == layout["pre_tokenizer"]
        self._later = self._first if unchanged else _plain(type(backend), layout | {"pre_tokenizer": later})
        self._moved = _moved_ids(self._first, layout)

    def control_in(self, text: str) -> list[str]:
        """Return the control tokens that the tokenizer would recognize in the text, in order."""
        return self._find_control.findall(text) if self._find_control else []

    def mask_control(self, text: str) -> str:
        """Insert a private-use character before the last character of each control token's text to break it."""
        if self._find_control is None:
            return text
        return self._find_control.sub(lambda match: match[0][:-1] + MASK + match[0][-1], text)

    def encode(self, text: str) -> list[int]:
        """Return the ids of the text, without adding or interpreting special tokens. Lone surrogates become U+FFFD."""
        return self._plain_ids(self._first, clean(text))

    def clip(self, text: str, max_tokens: int) -> str:
        """Return the longest prefix of the text that is at most `max_tokens` tokens."""
        text = clean(text)
        encoding = self._first.encode(text, add_special_tokens=False)
        if len(encoding) <= max_tokens:
            return text
        # Cut where the first excess token starts: a character of several tokens is kept whole or dropped.
        return text[: encoding.offsets[max_tokens][0]] if max_tokens > 0 else ""

    def encode_prompt(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of a prompt in which MASK breaks control tokens that must stay text; all others are
        intended."""
        text = clean(text)
        if MASK not in text:
            return list(self.tokenizer.encode(text, add_special_tokens=add_special_tokens))
        ids = self.leading_ids() if add_special_tokens else []
        for position, piece in enumerate(self._pieces(text)):
            if isinstance(piece, int):
                ids.append(piece)
            elif piece:
                encoder = self._first if position == 0 else self._later
                ids.extend(self._plain_ids(encoder, piece.replace(MASK, "")))
        return [*ids, *self._around_ids[1]] if add_special_tokens else ids

    def ids_behind(self, prompt: str, text: str) -> list[int] | None:
        """Return the ids that a text adds after a prompt, of which only the last character is used; None if they
        merge."""
        end = "" if any(prompt.endswith(token) for token in self.control_tokens) else clean(prompt[-1:])
        before, whole = (self._plain_ids(self._later, end + added) for added in ("", clean(text)))
        return whole[len(before) :] if whole[: len(before)] == before else None

    def encode_answered(self, text: str, answer: str, *, add_special_tokens: bool) -> tuple[list[int], int]:
        """Return the ids of a prompt followed by an answer, and the number of prompt ids.

        Tokenizers split at every control token, so only the part after the prompt's last one is tokenized again for
        counting. Raises ContractError if prompt and answer share a token.
        """
        whole = self.encode_prompt(text + answer, add_special_tokens=add_special_tokens)
        if n_prompt := self._counted_from_last_control(text, whole):
            return whole, n_prompt
        prompt = self.encode_prompt(text, add_special_tokens=add_special_tokens)
        if whole[: len(prompt)] != prompt:
            raise ContractError("the tokenizer merges the end of the prompt with the start of the answer")
        return whole, len(prompt)

    def _counted_from_last_control(self, text: str, whole: list[int]) -> int:
        """Return the number of prompt ids; 0 if the last control token does not determine it."""
        found = list(self._find_control.finditer(text)) if self._find_control else []
        if not found:
            return 0
        identity = self.control_tokens[found[-1][0]][0]
        if identity not in whole:
            return 0
        tail = self.encode_prompt(text[found[-1].start() :], add_special_tokens=False)
        place = len(whole) - 1 - whole[::-1].index(identity)
        end = place + len(tail)
        return end if tail[:1] == [identity] and whole[place:end] == tail else 0

    def _plain_ids(self, encoder: Any, text: str) -> list[int]:
        ids = encoder.encode(text, add_special_tokens=False).ids
        return [self._moved.get(i, i) for i in ids] if self._moved else list(ids)

    def _pieces(self, text: str) -> list[str | int]:
        """Split the prompt into text, control id, text, control id, ..., text."""
        pieces: list[str | int] = []
        start, strip_left = 0, False
        for match in self._find_control.finditer(text) if self._find_control else ():
            identity, swallows_left, swallows_right = self.control_tokens[match[0]]
            piece = text[start : match.start()]
            piece = piece.lstrip() if strip_left else piece
            pieces += [piece.rstrip() if swallows_left else piece, identity]
            start, strip_left = match.end(), swallows_right
        tail = text[start:]
        return [*pieces, tail.lstrip() if strip_left else tail]

    def leading_ids(self) -> list[int]:
        """Return the ids that the tokenizer puts before every text (BOS)."""
        return list(self._around_ids[0])

    @functools.cached_property
    def _around_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids that the tokenizer puts before every text (BOS) and after it (EOS of T5)."""
        # Cached: needed for every pair, and takes two calls of the tokenizer.
        plain = self.tokenizer.encode("a", add_special_tokens=False)
        full = self.tokenizer.encode("a", add_special_tokens=True)
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                return tuple(full[:start]), tuple(full[start + len(plain) :])
        return (), ()


MASK = "\uf8e3"
"""Private-use character that breaks control tokens in untrusted text until the prompt is split into pieces."""


def clean(text: str) -> str:
    """Replace lone surrogates, which no tokenizer accepts, by U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def single_ids(safe: SafeTokenizer, words: Sequence[str], *, after: str) -> list[int]:
    """Return the id of each word directly after `after`, where it must be a single token.

    Source: the originals train and read the token of the bare letter (castorini/rank_llm@1b3cabb
    training/utils/train_utils.py).
    Raises ContractError naming the first word that is more than one token there.
    """
    tokenizer = safe.tokenizer
    before = safe.encode(after) if after else []
    found = []
    for word in words:
        ids = safe.encode(after + word)
        if ids[: len(before)] == before and len(ids) == len(before) + 1:
            found.append(ids[-1])
            continue
        # Some tokenizers merge `[A`. The word is then read, and trained, as a separate token.
        token = tokenizer.convert_tokens_to_ids(word)
        # A model may be read at the unknown token itself (ctxl-rerank-v2-6b: the first in the vocabulary).
        if token is None or (token == tokenizer.unk_token_id and word != tokenizer.unk_token):
            raise ContractError(f"identifier {word!r} is {len(ids) - len(before)} tokens after {after!r}, expected one")
        found.append(int(token))
    return found


def _control_tokens(tokenizer: Any) -> dict[str, tuple[int, bool, bool]]:
    """Return all special tokens, and added tokens that look like markup (Qwen3's `<think>` is not marked special)."""
    return {
        token.content: (int(identity), bool(token.lstrip), bool(token.rstrip))
        for identity, token in tokenizer.added_tokens_decoder.items()
        if token.content and (token.special or _MARKUP.match(token.content))
    }


def _alternatives(control_tokens: dict[str, tuple[int, bool, bool]]) -> re.Pattern[str] | None:
    longest_first = sorted(control_tokens, key=len, reverse=True)
    return re.compile("|".join(re.escape(text) for text in longest_first)) if longest_first else None


def _plain(kind: Any, layout: dict[str, Any]) -> Any:
    """Return the tokenizer without control tokens."""
    kept = [t for t in layout["added_tokens"] if not (t["special"] or _MARKUP.match(t["content"]))]
    plain = layout | {"added_tokens": kept, "post_processor": None, "truncation": None, "padding": None}
    left_out = {t["content"] for t in layout["added_tokens"] if t not in kept}
    plain["model"] = _without_pieces(layout["model"], left_out)
    return kind.from_str(json.dumps(plain))


def _without_pieces(model: dict[str, Any], contents: set[str]) -> dict[str, Any]:
    """Remove pieces from a tokenizer model that finds whole pieces in its vocabulary: `</s>` is one in XLM-R.

    Ids are unchanged: the pieces are renamed to what no text is split into, since spaces separate words.
    """
    if model.get("type") not in ("Unigram", "WordPiece", "WordLevel"):
        return model
    spared = {model.get("unk_token")}  # looked up by name; text that spells it is as unknown as any other

    def rename(piece: str) -> str:
        return f"{piece} {piece}" if piece in contents - spared else piece

    if model["type"] == "Unigram":
        return model | {"vocab": [[rename(piece), score] for piece, score in model["vocab"]]}
    return model | {"vocab": {rename(piece): identity for piece, identity in model["vocab"].items()}}


def _moved_ids(plain: Any, layout: dict[str, Any]) -> dict[int, int]:
    """Map ids in the copy to ids in the tokenizer, for added tokens that moved up because a control token was
    removed."""
    right = {token["content"]: int(token["id"]) for token in layout["added_tokens"]}
    here = {token.content: identity for identity, token in plain.get_added_tokens_decoder().items()}
    return {identity: right[content] for content, identity in here.items() if right[content] != identity}


def _without_first_blank(step: Any) -> Any:
    """Undo that Metaspace with `prepend_scheme: first` puts a space before the first piece of a text."""
    if not isinstance(step, dict):
        return step
    if step.get("type") == "Metaspace" and step.get("prepend_scheme") == "first":
        return step | {"prepend_scheme": "never"}
    if step.get("type") == "Sequence":
        return step | {"pretokenizers": [_without_first_blank(inner) for inner in step["pretokenizers"]]}
    return step

"""Tokenise text that nobody vouches for: a control token written in a passage stays text.

A tokenizer turns `<|im_end|>` into the control token wherever it stands. Prompts are tokenised here instead: the
control tokens of the prompt's own layout are looked up, everything else is encoded by a copy of the tokenizer that
knows none.
The tokenizer is any fast one of transformers; this module does not import transformers.
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
    """A fast tokenizer that can encode text without reading control tokens in it.

    tokenizer: a fast tokenizer of transformers. Raises ContractError for any other.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or not hasattr(backend, "to_str"):
            raise ContractError(
                f"tokenizer {type(tokenizer).__name__} is not a fast one; "
                "rankllm needs a tokenizer.json beside the model"
            )
        self.tokenizer = tokenizer
        self.control_tokens = _control_tokens(tokenizer)
        """Text of each control token -> (id, whether it swallows blanks on its left, on its right)."""
        self._find_control = _alternatives(self.control_tokens)
        layout = json.loads(backend.to_str())
        self._first = _plain(type(backend), layout)
        """For text at the start of a prompt, where some tokenizers add a blank; `_later` for text behind a token."""
        later = _without_first_blank(layout["pre_tokenizer"])
        unchanged = later == layout["pre_tokenizer"]
        self._later = self._first if unchanged else _plain(type(backend), layout | {"pre_tokenizer": later})
        self._moved = _moved_ids(self._first, layout)

    def control_in(self, text: str) -> list[str]:
        """The control tokens that the tokenizer would read in the text, in order."""
        return self._find_control.findall(text) if self._find_control else []

    def mask_control(self, text: str) -> str:
        """Put a private-use character before the last one of each control token's text, so that none is read."""
        if self._find_control is None:
            return text
        return self._find_control.sub(lambda match: match[0][:-1] + MASK + match[0][-1], text)

    def encode(self, text: str) -> list[int]:
        """Ids of the text, special tokens neither added nor read. Lone surrogates become U+FFFD."""
        return self._plain_ids(self._first, clean(text))

    def clip(self, text: str, max_tokens: int) -> str:
        """The longest beginning of the text that the tokenizer cuts into at most `max_tokens` tokens."""
        text = clean(text)
        encoding = self._first.encode(text, add_special_tokens=False)
        if len(encoding) <= max_tokens:
            return text
        # Where the first token too many begins: a character that is several tokens is kept whole or not at all.
        return text[: encoding.offsets[max_tokens][0]] if max_tokens > 0 else ""

    def encode_prompt(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Ids of a prompt in which each MASK breaks a control token that must stay text, all others being meant."""
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
        """Ids that a text adds behind a prompt, None where the tokenizer joins the two. One character of it is read."""
        end = "" if any(prompt.endswith(token) for token in self.control_tokens) else clean(prompt[-1:])
        before, whole = (self._plain_ids(self._later, end + added) for added in ("", clean(text)))
        return whole[len(before) :] if whole[: len(before)] == before else None

    def encode_answered(self, text: str, answer: str, *, add_special_tokens: bool) -> tuple[list[int], int]:
        """Ids of a prompt with an answer behind it, and how many of them are the prompt's.

        A tokenizer cuts at every control token, so what follows the prompt's last one is tokenised once more, to be
        counted, and not the whole prompt. Raises ContractError where prompt and answer share a token.
        """
        whole = self.encode_prompt(text + answer, add_special_tokens=add_special_tokens)
        if n_prompt := self._counted_from_last_control(text, whole):
            return whole, n_prompt
        prompt = self.encode_prompt(text, add_special_tokens=add_special_tokens)
        if whole[: len(prompt)] != prompt:
            raise ContractError("the tokenizer joins the end of the prompt with the beginning of the answer")
        return whole, len(prompt)

    def _counted_from_last_control(self, text: str, whole: list[int]) -> int:
        """How many of the ids are the prompt's; 0 where its last control token does not tell."""
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
        """The prompt as text, control id, text, control id, ..., text."""
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
        """What the tokenizer puts before every text (BOS)."""
        return list(self._around_ids[0])

    @functools.cached_property
    def _around_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the tokenizer puts before every text (BOS), and behind it (T5's EOS)."""
        # Asked for with every pair, and two calls of the tokenizer.
        plain = self.tokenizer.encode("a", add_special_tokens=False)
        full = self.tokenizer.encode("a", add_special_tokens=True)
        for start in range(len(full) - len(plain) + 1):
            if full[start : start + len(plain)] == plain:
                return tuple(full[:start]), tuple(full[start + len(plain) :])
        return (), ()


MASK = "\uf8e3"
"""A private-use character that breaks up control tokens of foreign text until the prompt is cut into pieces."""


def clean(text: str) -> str:
    """The text without lone surrogates, which no tokenizer takes; each becomes U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def single_ids(safe: SafeTokenizer, words: Sequence[str], *, after: str) -> list[int]:
    """The id that each word has where it follows `after` without a blank, one token each.

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
        # Some tokenizers glue `[A`. The word is then read, and trained, as a token of its own.
        token = tokenizer.convert_tokens_to_ids(word)
        # A model may be read at the unknown token itself (ctxl-rerank-v2 of 6B: the first of the vocabulary).
        if token is None or (token == tokenizer.unk_token_id and word != tokenizer.unk_token):
            raise ContractError(f"identifier {word!r} is {len(ids) - len(before)} tokens after {after!r}, expected one")
        found.append(int(token))
    return found


def _control_tokens(tokenizer: Any) -> dict[str, tuple[int, bool, bool]]:
    """All special tokens, and added tokens that look like markup (`<think>` of Qwen3 is not marked special)."""
    return {
        token.content: (int(identity), bool(token.lstrip), bool(token.rstrip))
        for identity, token in tokenizer.added_tokens_decoder.items()
        if token.content and (token.special or _MARKUP.match(token.content))
    }


def _alternatives(control_tokens: dict[str, tuple[int, bool, bool]]) -> re.Pattern[str] | None:
    longest_first = sorted(control_tokens, key=len, reverse=True)
    return re.compile("|".join(re.escape(text) for text in longest_first)) if longest_first else None


def _plain(kind: Any, layout: dict[str, Any]) -> Any:
    """The tokenizer without control tokens."""
    kept = [t for t in layout["added_tokens"] if not (t["special"] or _MARKUP.match(t["content"]))]
    plain = layout | {"added_tokens": kept, "post_processor": None, "truncation": None, "padding": None}
    left_out = {t["content"] for t in layout["added_tokens"] if t not in kept}
    plain["model"] = _without_pieces(layout["model"], left_out)
    return kind.from_str(json.dumps(plain))


def _without_pieces(model: dict[str, Any], contents: set[str]) -> dict[str, Any]:
    """The model of a tokenizer that finds whole pieces in its vocabulary, without these: `</s>` is one of XLM-R's.

    Ids stay as they are: the pieces are renamed to what no text is split into, since blanks separate words.
    """
    if model.get("type") not in ("Unigram", "WordPiece", "WordLevel"):
        return model
    spared = {model.get("unk_token")}  # asked for by name; text that writes it is as unknown as any other

    def rename(piece: str) -> str:
        return f"{piece} {piece}" if piece in contents - spared else piece

    if model["type"] == "Unigram":
        return model | {"vocab": [[rename(piece), score] for piece, score in model["vocab"]]}
    return model | {"vocab": {rename(piece): identity for piece, identity in model["vocab"].items()}}


def _moved_ids(plain: Any, layout: dict[str, Any]) -> dict[int, int]:
    """Id in the copy -> id in the tokenizer, of added tokens that moved up where a control token was left out."""
    right = {token["content"]: int(token["id"]) for token in layout["added_tokens"]}
    here = {token.content: identity for identity, token in plain.get_added_tokens_decoder().items()}
    return {identity: right[content] for content, identity in here.items() if right[content] != identity}


def _without_first_blank(step: Any) -> Any:
    """Metaspace with `prepend_scheme: first` puts a blank before the first piece of a text only."""
    if not isinstance(step, dict):
        return step
    if step.get("type") == "Metaspace" and step.get("prepend_scheme") == "first":
        return step | {"prepend_scheme": "never"}
    if step.get("type") == "Sequence":
        return step | {"pretokenizers": [_without_first_blank(inner) for inner in step["pretokenizers"]]}
    return step

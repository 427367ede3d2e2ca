"""T5 tokenizer from SentencePiece's own file, `spiece.model`, which is all that castorini's checkpoints contain.

transformers needs two more packages to read such a file (sentencepiece, protobuf), and mistakes it for another format
without them. Three things are read from the file's message (google/sentencepiece src/sentencepiece_model.proto): the
pieces with their scores and kinds, the kind of model, and the table of its normalizer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankllm_core.checkpoints.model_folder import read_bounded, read_model_json, refuse_lfs_pointer, unexpected
from rankllm_core.errors import RankLLMError

SENTENCEPIECE_MODEL = "spiece.model"

_MAX_BYTES = 64 << 20
"""Maximum file size; mT5's, with 250,000 pieces, is 4.3 MB."""
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _SCORE, _KIND = 1, 2, 3
_MODEL_TYPE, _UNIGRAM = 3, 1
_CHARSMAP = 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types of a protobuf field."""
_CONTROL, _USER_DEFINED = 3, 4
_SENTINELS, _MOST_SENTINELS = 100, 10_000
"""Default number of T5's `<extra_id_N>` tokens, and the maximum accepted as plausible."""
_SETTINGS = ("eos_token", "unk_token", "pad_token", "extra_ids", "model_max_length")
"""Settings of `tokenizer_config.json` used to build T5's tokenizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SentencePieceModel:
    """Contents of a T5 tokenizer."""

    pieces: tuple[tuple[str, float], ...]
    """Piece and score (log-probability), by token id."""
    control: tuple[str, ...]
    """Pieces that are control tokens or user-defined symbols."""
    charsmap: bytes
    """Table of the normalizer; empty if it has none."""


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Read a unigram model. Raises RankLLMError in one line if the file is damaged or contains another kind of
    model."""
    content = read_bounded(path, limit=_MAX_BYTES) or b""
    refuse_lfs_pointer(path, content[:64])
    pieces, control, charsmap, kind = [], [], b"", _UNIGRAM
    try:
        for field, value in _fields(content):
            if field == _PIECES:
                piece = dict(_fields(value))
                text = bytes(piece[_TEXT]).decode("utf-8")
                pieces.append((text, struct.unpack("<f", piece.get(_SCORE, b"\0\0\0\0"))[0]))
                if piece.get(_KIND) in (_CONTROL, _USER_DEFINED):
                    control.append(text)
            elif field == _TRAINER:
                kind = dict(_fields(value)).get(_MODEL_TYPE, _UNIGRAM)
            elif field == _NORMALIZER:
                charsmap = bytes(dict(_fields(value)).get(_CHARSMAP, b""))
    except (ValueError, KeyError, IndexError, TypeError, struct.error):
        raise RankLLMError(f"{path}: incomplete SentencePiece model; copy or download the model again") from None
    if not pieces or kind != _UNIGRAM:
        found = "no pieces" if not pieces else f"a model of kind {kind}"
        raise RankLLMError(f"{path}: expected a unigram model of SentencePiece, found {found}")
    return SentencePieceModel(pieces=tuple(pieces), control=tuple(control), charsmap=charsmap)


def sentencepiece_tokenizer(folder: Path) -> Any:
    """Build the T5 tokenizer of a folder with `spiece.model`, like transformers does. Raises RankLLMError."""
    from transformers import AddedToken, T5Tokenizer

    model = read_sentencepiece(folder / SENTENCEPIECE_MODEL)
    given = read_model_json(folder / "tokenizer_config.json") or {}
    settings = {name: given[name] for name in _SETTINGS if given.get(name) is not None}
    tokens = {name: value["content"] if isinstance(value, dict) else value for name, value in settings.items()}
    # Sentinels follow the pieces in reverse order: <extra_id_0> is the very last token.
    n_sentinels = given.get("extra_ids", _SENTINELS)
    if type(n_sentinels) is not int or not 0 <= n_sentinels <= _MOST_SENTINELS:
        expected = f"an integer from 0 to {_MOST_SENTINELS}"
        raise unexpected(folder / "tokenizer_config.json", "extra_ids", expected, n_sentinels)
    sentinels = [(f"<extra_id_{number}>", 0.0) for number in range(n_sentinels - 1, -1, -1)]
    return T5Tokenizer(
        vocab=[*model.pieces, *sentinels],
        additional_special_tokens=[AddedToken(text, normalized=False, special=True) for text in model.control],
        _spm_precompiled_charsmap=model.charsmap or None,
        **tokens,
    )


def _fields(content: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of a protobuf message: an integer, or bytes. Raises ValueError or
    IndexError."""
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        wire = key & 7
        if wire == _VARINT:
            value, place = _varint(content, place)
            yield key >> 3, value
            continue
        if wire not in (_BYTES, _FIXED32, _FIXED64):
            raise ValueError(f"wire type {wire}")
        size = 4 if wire == _FIXED32 else 8
        if wire == _BYTES:
            size, place = _varint(content, place)
        if place + size > len(content):
            raise ValueError("ends within a field")
        yield key >> 3, content[place : place + size]
        place += size


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """Return the integer at an offset, and the offset after it."""
    value = shift = 0
    while True:
        byte = content[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")

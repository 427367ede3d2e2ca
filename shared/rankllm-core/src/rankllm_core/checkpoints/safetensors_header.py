"""What a safetensors file holds, from its header alone: no tensor is read and no native code is called.

Source: the format's description, huggingface/safetensors README ("Format").
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rankllm_core.errors import RankLLMError

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself."""

_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}
"""Bits of one element by the name of its type."""

_MAX_RANK = 16
_LFS_POINTER = b"version https://git-lfs.github.com/"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One tensor of a file."""

    dtype: str
    shape: tuple[int, ...]


def read_safetensors_header(path: str | Path) -> dict[str, TensorInfo]:
    """Return every tensor's type and shape by name, after checking that the file is whole.

    Raises RankLLMError in one line that names the file: missing, a Git LFS pointer, truncated, header too long or not
    JSON, unknown types, offsets that overlap, leave a gap or do not fit the file.
    """
    path = Path(path)
    if not path.is_file():
        raise RankLLMError(f"{path}: no such file; copy or download the model again")
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        refuse_lfs_pointer(path, start + stream.read(len(_LFS_POINTER) - 8))
        if len(start) < 8:
            raise _damaged(path, f"{size} bytes, too short for a header")
        (length,) = struct.unpack("<Q", start)
        if length > MAX_HEADER_BYTES:
            raise _damaged(path, f"a header of {length} bytes, expected at most {MAX_HEADER_BYTES}")
        if 8 + length > size:
            raise _damaged(path, f"a header of {length} bytes in a file of {size}")
        stream.seek(8)
        header = _parsed(path, stream.read(length))
    tensors = {name: _tensor(path, name, entry) for name, entry in header.items() if name != "__metadata__"}
    _check_layout(path, tensors, data_bytes=size - 8 - length)
    return {name: info for name, (info, _, _) in tensors.items()}


def refuse_lfs_pointer(path: str | Path, start: bytes) -> None:
    """Raise RankLLMError for the placeholder that Git leaves where Git LFS has not fetched the file itself."""
    if start.startswith(_LFS_POINTER):
        raise RankLLMError(f"{path}: is a Git LFS pointer, not the file itself; fetch it with: git lfs pull")


def _parsed(path: Path, text: bytes) -> Mapping[str, object]:
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, _RepeatedKeyError) else "not JSON"
        raise _damaged(path, f"a header that is {reason}") from None
    if not isinstance(header, dict):
        raise _damaged(path, "a header that is no JSON object")
    return header


class _RepeatedKeyError(ValueError):
    pass


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise _RepeatedKeyError("ambiguous (a name occurs twice)")
    return values


def _tensor(path: Path, name: str, entry: object) -> tuple[TensorInfo, int, int]:
    """Type and shape of a tensor, and where its bytes begin and end."""
    if not isinstance(entry, dict):
        raise _damaged(path, f"no description of tensor {name[:80]!r}")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _damaged(path, f"tensor {name[:80]!r} of the unknown type {str(dtype)[:40]!r}")
    if not _is_sizes(shape) or len(shape) > _MAX_RANK:  # type: ignore[arg-type]
        raise _damaged(path, f"tensor {name[:80]!r} of the impossible shape {str(shape)[:60]}")
    if not _is_sizes(offsets) or len(offsets) != 2:  # type: ignore[arg-type]
        raise _damaged(path, f"tensor {name[:80]!r} at the impossible offsets {str(offsets)[:60]}")
    begin, end = offsets  # type: ignore[misc]
    bits = math.prod(shape) * _BITS[dtype]  # type: ignore[arg-type]
    if bits % 8 or end - begin != bits // 8:
        raise _damaged(path, f"tensor {name[:80]!r}: {end - begin} bytes for {dtype} of shape {str(shape)[:60]}")
    return TensorInfo(dtype=dtype, shape=tuple(shape)), begin, end  # type: ignore[arg-type]


def _is_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _check_layout(path: Path, tensors: Mapping[str, tuple[TensorInfo, int, int]], *, data_bytes: int) -> None:
    """The tensors stand one behind the other and fill the file."""
    expected = 0
    for name, (_, begin, end) in sorted(tensors.items(), key=lambda item: item[1][1:]):
        if begin != expected:
            raise _damaged(path, f"tensor {name[:80]!r} at byte {begin}, expected at {expected}")
        expected = end
    if expected != data_bytes:
        raise _damaged(path, f"{data_bytes} bytes of weights, expected {expected}")


def _damaged(path: Path, found: str) -> RankLLMError:
    return RankLLMError(f"{path}: damaged or incomplete weights: found {found}; copy or download the model again")

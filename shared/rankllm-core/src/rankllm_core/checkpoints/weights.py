"""Validation of a model's weights by their file headers, before heavy imports."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rankllm_core.checkpoints.model_folder import LFS_POINTER, read_model_json, refuse_lfs_pointer, unexpected
from rankllm_core.errors import ContractError, RankLLMError

MAX_HEADER_BYTES = 100_000_000
"""Limit of the safetensors library."""

_LAYER_NUMBER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d{1,6})\.")
_EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight")
_MAX_LAYERS_A_COUNT = 4
"""Some families store several layers per counted layer; a larger factor indicates a damaged configuration."""
_MAX_DIMENSIONS = 16
_ELEMENT_BITS = {
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
"""Bits per element, by dtype name."""


def read_weight_headers(folder: str | Path) -> dict[str, TensorInfo]:
    """Check the weights that would be loaded from a model or adapter folder, and describe their tensors.

    Pickled weights (.bin) are not inspected: the result is empty. Raises RankLLMError for missing weights, a damaged or
    missing file, an index that does not match, or a configuration with far more layers than there are weights for.
    """
    folder = Path(folder)
    is_adapter = (folder / "adapter_config.json").is_file()
    if not is_adapter and not (folder / "config.json").is_file():
        raise RankLLMError(f"{folder}: config.json is missing, expected a folder with a model")
    stem = "adapter_model" if is_adapter else "model"
    if (folder / f"{stem}.safetensors").exists():
        tensors = read_safetensors_header(folder / f"{stem}.safetensors")
    elif not is_adapter and (folder / "model.safetensors.index.json").exists():
        tensors = _read_shards(folder, folder / "model.safetensors.index.json")
    else:
        _check_pickled(folder, "adapter_model.bin" if is_adapter else "pytorch_model.bin")
        return {}
    if is_adapter:
        _check_lora_ranks(folder, tensors)
    else:
        _check_sizes_held(folder, tensors)
    return tensors


def _read_shards(folder: Path, index: Path) -> dict[str, TensorInfo]:
    weight_map = _weight_map(index)
    shards = {name: read_safetensors_header(folder / name) for name in sorted(set(weight_map.values()))}
    tensors: dict[str, TensorInfo] = {}
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise RankLLMError(f"{index}: expected tensor {name[:80]!r} in {shard}, which does not contain it")
        tensors[name] = shards[shard][name]
    return tensors


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = (read_model_json(index) or {}).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise unexpected(index, "weight_map", "file names by tensor", weight_map)
    for name in weight_map.values():
        if not isinstance(name, str) or not name or name in (".", "..") or "/" in name or "\\" in name:
            raise unexpected(index, "weight_map", "names of files in the same folder", name)
    return dict(weight_map)


def _check_pickled(folder: Path, name: str) -> None:
    """Check that pickled weights exist and are not placeholders. They are only ever loaded as plain tensors."""
    index = folder / f"{name}.index.json"
    if not (folder / name).exists() and not index.exists():
        others = sorted(path.name for path in folder.iterdir() if path.suffix in (".gguf", ".h5", ".msgpack", ".onnx"))
        beside = f"; {others[0]} has an unsupported format" if others else ""
        wanted = name.replace("pytorch_model", "model").replace(".bin", ".safetensors")
        raise RankLLMError(f"{folder}: {wanted} is missing, expected the model's weights{beside}")
    files = [name] if (folder / name).exists() else sorted(set(_weight_map(index).values()))
    for file in files:
        path = folder / file
        if not path.is_file():
            raise RankLLMError(f"{path}: no such file; copy or download the model again")
        with path.open("rb") as stream:
            start = stream.read(64)
        refuse_lfs_pointer(path, start)
        if not start.startswith((b"PK\x03\x04", b"\x80")):
            raise RankLLMError(
                f"{path}: damaged or incomplete weights: not a PyTorch file; copy or download the model again"
            )


def _check_sizes_held(folder: Path, tensors: Mapping[str, TensorInfo]) -> None:
    """Missing weights are allocated before they are reported: limit how many there can be."""
    config = read_model_json(folder / "config.json") or {}
    part = config.get("text_config")
    rows = config.get("vocab_size", part.get("vocab_size") if isinstance(part, Mapping) else None)
    for name, info in tensors.items():
        if name.endswith(_EMBEDDINGS) and len(info.shape) == 2 and isinstance(rows, int) and rows != info.shape[0]:
            raise ContractError(
                f"{folder}: config.json has vocab_size {rows}, but the weights have {info.shape[0]} rows ({name})"
            )
    held = max((int(match[1]) + 1 for name in tensors if (match := _LAYER_NUMBER.search(name))), default=0)
    said = config.get("num_hidden_layers")
    if held and isinstance(said, int) and said > _MAX_LAYERS_A_COUNT * held:
        raise ContractError(
            f"{folder}: the checkpoint lacks weights: config.json has {said} layers, but the weights only {held}"
        )


def _check_lora_ranks(folder: Path, tensors: Mapping[str, TensorInfo]) -> None:
    """The matrices are allocated from the settings, so these must match the size of the weights."""
    settings = read_model_json(folder / "adapter_config.json") or {}
    held = {info.shape[0] for name, info in tensors.items() if ".lora_A." in name and info.shape}
    pattern = settings.get("rank_pattern")
    for rank in (settings.get("r"), *(pattern.values() if isinstance(pattern, Mapping) else ())):
        if held and isinstance(rank, int) and rank > max(held):
            raise ContractError(
                f"{folder}: adapter_config.json has rank {rank}, but the weights have at most rank {max(held)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """Type and shape of a tensor."""

    dtype: str
    shape: tuple[int, ...]


def read_safetensors_header(path: str | Path) -> dict[str, TensorInfo]:
    """Return every tensor's type and shape by name, after checking that the file is complete.

    Raises RankLLMError naming the file if it is missing, a Git LFS pointer or truncated, if its header is too long or
    not JSON, or for unknown types and for offsets that overlap, leave gaps or do not fit the file.
    """
    path = Path(path)
    if not path.is_file():
        raise RankLLMError(f"{path}: no such file; copy or download the model again")
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        refuse_lfs_pointer(path, start + stream.read(len(LFS_POINTER) - 8))
        if len(start) < 8:
            raise _damaged(path, f"{size} bytes, too short for a header")
        (length,) = struct.unpack("<Q", start)
        if length > MAX_HEADER_BYTES:
            raise _damaged(path, f"a header of {length} bytes, expected at most {MAX_HEADER_BYTES}")
        if 8 + length > size:
            raise _damaged(path, f"a header of {length} bytes in a file of {size}")
        stream.seek(8)
        header = _parsed_header(path, stream.read(length))
    tensors = {name: _tensor(path, name, entry) for name, entry in header.items() if name != "__metadata__"}
    _check_layout(path, tensors, data_bytes=size - 8 - length)
    return {name: info for name, (info, _, _) in tensors.items()}


def _parsed_header(path: Path, text: bytes) -> Mapping[str, object]:
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, _RepeatedKeyError) else "not JSON"
        raise _damaged(path, f"a header that is {reason}") from None
    if not isinstance(header, dict):
        raise _damaged(path, "a header that is not a JSON object")
    return header


class _RepeatedKeyError(ValueError):
    pass


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise _RepeatedKeyError("ambiguous (a name occurs twice)")
    return values


def _tensor(path: Path, name: str, entry: object) -> tuple[TensorInfo, int, int]:
    """Return type and shape of a tensor, and where its bytes start and end."""
    if not isinstance(entry, dict):
        raise _damaged(path, f"no description of tensor {name[:80]!r}")
    dtype, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in _ELEMENT_BITS:
        raise _damaged(path, f"tensor {name[:80]!r} of the unknown type {str(dtype)[:40]!r}")
    if not _is_sizes(shape) or len(shape) > _MAX_DIMENSIONS:  # type: ignore[arg-type]
        raise _damaged(path, f"tensor {name[:80]!r} of the impossible shape {str(shape)[:60]}")
    if not _is_sizes(offsets) or len(offsets) != 2:  # type: ignore[arg-type]
        raise _damaged(path, f"tensor {name[:80]!r} at the impossible offsets {str(offsets)[:60]}")
    begin, end = offsets  # type: ignore[misc]
    bits = math.prod(shape) * _ELEMENT_BITS[dtype]  # type: ignore[arg-type]
    if bits % 8 or end - begin != bits // 8:
        raise _damaged(path, f"tensor {name[:80]!r}: {end - begin} bytes for {dtype} of shape {str(shape)[:60]}")
    return TensorInfo(dtype=dtype, shape=tuple(shape)), begin, end  # type: ignore[arg-type]


def _is_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def _check_layout(path: Path, tensors: Mapping[str, tuple[TensorInfo, int, int]], *, data_bytes: int) -> None:
    """Check that the tensors are contiguous and fill the file."""
    expected = 0
    for name, (_, begin, end) in sorted(tensors.items(), key=lambda item: item[1][1:]):
        if begin != expected:
            raise _damaged(path, f"tensor {name[:80]!r} at byte {begin}, expected at {expected}")
        expected = end
    if expected != data_bytes:
        raise _damaged(path, f"{data_bytes} bytes of weights, expected {expected}")


def _damaged(path: Path, found: str) -> RankLLMError:
    return RankLLMError(f"{path}: damaged or incomplete weights: found {found}; copy or download the model again")

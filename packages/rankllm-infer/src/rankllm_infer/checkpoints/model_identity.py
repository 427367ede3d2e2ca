"""Identity of a model's files, to distinguish them from another model's: a commit on the hub, or a hash."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from rankllm_core.checkpoints.head_modules import MODULES_NAME, module_folders
from rankllm_core.checkpoints.model_folder import split_revision
from rankllm_core.checkpoints.weights import MAX_HEADER_BYTES
from rankllm_infer.checkpoints.hub import commit_of
from rankllm_infer.checkpoints.model_files import ModelFolder

_WEIGHT_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_SMALL_FILE_ENDINGS = (".json", ".model", ".jinja", ".tiktoken", ".spm", ".py", "vocab.txt", "merges.txt")
_ADAPTER_STEM = "adapter_model"
"""Adapters are small: all of their bytes are hashed."""

_N_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16
_TENSOR_BYTES = 1 << 14
"""Tensors up to this size are read completely (norms, biases, the score head); of larger ones, this many bytes in three
spots."""
_MANY_TENSORS = 2_000
"""If a file has more tensors (mixtures of experts), only one spot is read per large tensor."""


def model_identity(model: ModelFolder) -> str:
    """Return a model's name and a fingerprint of its files.

    The fingerprint is the revision for a model on the hub, and a hash for a folder: of all bytes of small files and
    adapters, and of part of every weight tensor. Unlike timestamps, this survives copying and detects a model that was
    trained further in the same folder, even if only its head changed; unlike a hash of all weights, it does not take
    minutes.
    """
    # The commit identifies the revision, however it was requested.
    name = model.name if commit_of(model.path) is None else split_revision(model.name)[0]
    return f"{Path(name).expanduser().absolute().name} {folder_identity(model.path)}"


def folder_identity(folder: Path) -> str:
    """Return the fingerprint of a model's files: a revision on the hub, or a hash."""
    if (commit := commit_of(folder)) is not None:
        return f"revision {commit}"
    digest = hashlib.sha256()
    for path in _identity_files(folder):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        is_sampled = path.suffix in _WEIGHT_ENDINGS and not path.name.startswith(_ADAPTER_STEM)
        with path.open("rb") as stream:
            for block in _samples(stream, path) if is_sampled else iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    return f"sha256 {digest.hexdigest()[:32]}"


def _identity_files(folder: Path) -> Iterator[Path]:
    """Yield the files that identify a model: its own, then those of a head stored as separate modules."""
    places = [folder]
    if (folder / MODULES_NAME).is_file():
        places += [path for path in module_folders(folder) if path != folder and path.is_dir()]
    for place in places:
        names = (item for item in place.iterdir() if item.name.endswith((*_WEIGHT_ENDINGS, *_SMALL_FILE_ENDINGS)))
        yield from (path for path in sorted(names) if path.is_file())


def _samples(stream: IO[bytes], path: Path) -> Iterator[bytes]:
    spots = _tensor_spots(stream, path.stat().st_size) if path.suffix == ".safetensors" else []
    for place, n_bytes in spots or _even_spots(path.stat().st_size):
        stream.seek(place)
        yield stream.read(n_bytes)


def _even_spots(size: int) -> list[tuple[int, int]]:
    step = max(_SAMPLE_BYTES, size // _N_SAMPLES)
    return [(place, _SAMPLE_BYTES) for place in range(0, size, step)]


def _tensor_spots(stream: IO[bytes], size: int) -> list[tuple[int, int]]:
    """Return which parts of a safetensors file to read: its header and part of every tensor; [] if there is no usable
    header.

    Layout: eight bytes with the length of a JSON header, name -> {"data_offsets": [begin, end]}, then the data.
    """
    try:
        (n_header,) = struct.unpack("<Q", stream.read(8))
        if n_header > min(size, MAX_HEADER_BYTES):
            return []
        header = json.loads(stream.read(n_header))
        bounds = [map(int, header[name]["data_offsets"]) for name in header if name != "__metadata__"]
        data = 8 + n_header
        spots = [(data + begin, end - begin) for begin, end in bounds if 0 <= begin <= end <= size - data]
    except (struct.error, ValueError, RecursionError, LookupError, TypeError, OverflowError):
        # Not a safetensors file, which the loader reports.
        return []
    small = [spot for spot in spots if spot[1] <= _TENSOR_BYTES]
    large = [spot for spot in spots if spot[1] > _TENSOR_BYTES]
    parts = (0.0, 0.5, 1.0) if len(large) <= _MANY_TENSORS else (0.5,)
    sampled = [(place + int(part * (n - _TENSOR_BYTES)), _TENSOR_BYTES) for place, n in large for part in parts]
    return sorted([(0, data), *small, *sampled])

"""Sizes and checksums of what was unpacked into the cache, so that a damaged copy is noticed before it is used."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

from rankllm_core.files import write_text

MANIFEST = "MANIFEST"
"""The file's name: not one of JSON's, which belong to a model's identity (`model_files`)."""
_CHUNK_BYTES = 1 << 20


def write_manifest(folder: Path) -> None:
    """Record the size and CRC-32 of every file in a folder. Written last, when the others are whole."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
    with write_text(folder / MANIFEST) as stream:
        json.dump(
            {path.name: {"bytes": path.stat().st_size, "crc32": _crc32(path)} for path in files}, stream, indent=1
        )


def damage(folder: Path) -> str:
    """What differs from a folder's manifest, for people; empty where nothing does."""
    try:
        recorded = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, RecursionError):
        return f"{MANIFEST} cannot be read"
    if not isinstance(recorded, Mapping) or not recorded:
        return f"{MANIFEST} cannot be read"
    for name, entry in recorded.items():
        path = folder / name
        with contextlib.suppress(OSError):
            if entry == {"bytes": path.stat().st_size, "crc32": _crc32(path)}:
                continue
        return f"{name} is not as it was written"
    return ""


def _crc32(path: Path) -> str:
    value = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            value = zlib.crc32(chunk, value)
    return f"{value:08x}"

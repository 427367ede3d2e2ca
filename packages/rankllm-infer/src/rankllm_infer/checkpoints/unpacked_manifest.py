"""Sizes and checksums of files unpacked into the cache, to detect a damaged copy before it is used."""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

from rankllm_core.files import write_text

MANIFEST = "MANIFEST"
"""File name without a JSON suffix, because JSON files are part of a model's identity (`model_files`)."""
_CHUNK_BYTES = 1 << 20


def write_manifest(folder: Path) -> None:
    """Record size and CRC-32 of every file in a folder. Written last, once the other files are complete."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
    with write_text(folder / MANIFEST) as stream:
        json.dump(
            {path.name: {"bytes": path.stat().st_size, "crc32": _crc32(path)} for path in files}, stream, indent=1
        )


def damage(folder: Path) -> str:
    """Describe how a folder differs from its manifest; empty if it does not."""
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
        return f"{name} has changed since it was written"
    return ""


def _crc32(path: Path) -> str:
    value = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            value = zlib.crc32(chunk, value)
    return f"{value:08x}"

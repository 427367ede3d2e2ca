"""Manifests of model folders: size and SHA-256 of each file, so that damage is detected before anything is loaded.

`manifest.json` is written last, after every file it lists has been synced to disk:

    {"format": 1, "step": 500, "files": {"model.safetensors": {"size": 1234, "sha256": "..."}, ...}, "sha256": "..."}

`files` contains paths relative to the folder, with `/` as separator. The last `sha256` is that of the manifest without
this entry, so that a damaged manifest is not mistaken for a damaged file. README.md is not listed: it is prose that its
owner may edit.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.files.writing import sync_folder

MANIFEST_NAME = "manifest.json"
MANIFEST_FORMAT = 1
_UNLISTED = (MANIFEST_NAME, "README.md")
_THREADS = 4
"""Files hashed in parallel: hashlib releases the interpreter lock, and one core hashes more slowly than a disk
reads."""
_MAX_BYTES = 64 * 2**20
"""Larger files are not manifests."""
_KEYS = {"format", "files", "sha256"}
_LOADED = re.compile(r"((adapter_)?model|pytorch_model)\b.*\.(safetensors|bin)|tokenizer\.(json|model)")
"""Weights, in one or several files, and the tokenizer."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size and digest of a file when it was written."""

    size: int
    """In bytes."""
    sha256: str
    """Hexadecimal digest of the content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Files of a model folder, by relative path."""

    files: Mapping[str, FileEntry] = field(default_factory=dict)
    step: int | None = None
    """Number of optimizer steps taken, if known."""


def write_manifest(
    folder: str | Path, *, step: int | None = None, known: Mapping[str, FileEntry] | None = None
) -> Manifest:
    """List every file of a complete folder, and write the manifest into it.

    All listed files, the manifest and the folder are synced to disk on return. known: entries of files with known
    digests, which are not read again. Raises OSError if a file cannot be read or written.
    """
    folder, known = Path(folder), known or {}
    paths = {_name(path, folder): path for path in _files(folder)}

    def entry(name: str) -> FileEntry:
        _sync(paths[name])
        return known[name] if name in known else hash_file(paths[name])

    names = sorted(paths)
    with ThreadPoolExecutor(_THREADS) as pool:
        manifest = Manifest(files=dict(zip(names, pool.map(entry, names), strict=True)), step=step)
    part = folder / f".{MANIFEST_NAME}.part"
    part.write_bytes(_render(manifest))
    _sync(part)
    part.replace(folder / MANIFEST_NAME)
    for inner in {path.parent for path in paths.values()} | {folder}:
        sync_folder(inner)
    return manifest


def read_manifest(folder: str | Path) -> Manifest:
    """Return the manifest of a folder. Raises DataError if it is missing, damaged or of another format."""
    path = Path(folder) / MANIFEST_NAME
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise DataError("is missing", path=path) from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", path=path) from None
    try:
        found = json.loads(content)
        is_other = isinstance(found, dict) and found.get("format") not in (None, MANIFEST_FORMAT)
        manifest = Manifest(files={k: FileEntry(**v) for k, v in found["files"].items()}, step=found["step"])
        is_whole = _render(manifest) == content
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        is_other, is_whole = False, False
    if is_other:
        raise DataError(f"expected format {MANIFEST_FORMAT}, found {found['format']}; update rankllm", path=path)
    if not is_whole:
        raise DataError("is damaged (its own checksum does not match)", path=path)
    return manifest


def find_damage(
    folder: str | Path,
    *,
    is_read: Callable[[str], bool] = lambda name: True,
    is_loaded: Callable[[str], bool] = lambda name: False,
    only_sizes: bool = False,
) -> str | None:
    """Return what is wrong with the first damaged file of a folder, as `NAME: reason`; None if all files are as
    written.

    is_read: selects the listed files to check, by relative path; the others are ignored. is_loaded: selects files that
    would be loaded if present; such a file is damage if it is not listed. only_sizes: compare only sizes, which detects
    missing and truncated files without reading them. A folder without a manifest counts as damaged.
    """
    folder = Path(folder)
    try:
        manifest = read_manifest(folder)
    except DataError as error:
        return f"{MANIFEST_NAME}: {str(error).removeprefix(f'{error.path}: ')}"
    names = [name for name in sorted(manifest.files) if is_read(name)]
    for name in names:
        if reason := _size_fault(folder / name, manifest.files[name]):
            return f"{name}: {reason}"
    for path in _files(folder):
        name = _name(path, folder)
        if name not in manifest.files and is_loaded(name):
            return f"{name}: is not listed in {MANIFEST_NAME}; remove it"
    if only_sizes:
        return None
    with ThreadPoolExecutor(_THREADS) as pool:
        faults = pool.map(lambda name: _content_fault(folder / name, manifest.files[name]), names)
        return next((f"{name}: {fault}" for name, fault in zip(names, faults, strict=True) if fault), None)


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 lower-case hexadecimal digits. Raises OSError if it cannot be read."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_file(path: str | Path) -> FileEntry:
    """Return size and SHA-256 of a file, read in chunks. Raises OSError if it cannot be read."""
    return FileEntry(size=Path(path).stat().st_size, sha256=sha256_file(path))


def _size_fault(path: Path, expected: FileEntry) -> str | None:
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    return (
        None if size == expected.size else f"is damaged ({size} bytes, expected {expected.size} as in {MANIFEST_NAME})"
    )


def _content_fault(path: Path, expected: FileEntry) -> str | None:
    try:
        is_whole = hash_file(path) == expected
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if is_whole else f"is damaged (its SHA-256 differs from the one in {MANIFEST_NAME})"


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and _name(path, folder) not in _UNLISTED)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _render(manifest: Manifest) -> bytes:
    """Return the only valid serialization of a manifest: reading compares with it, so any changed byte is detected."""
    content: dict[str, Any] = {
        "format": MANIFEST_FORMAT,
        "step": manifest.step,
        "files": {name: asdict(entry) for name, entry in sorted(manifest.files.items())},
    }
    content["sha256"] = hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()
    return (json.dumps(content, indent=1) + "\n").encode("ascii")


def _sync(path: Path) -> None:
    # Windows syncs only files that are open for writing.
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def check_intact(folder: str | Path) -> None:
    """Raise RankLLMError naming the file if the weights or the tokenizer of a model are damaged.

    A folder without a manifest passes, and so does one whose manifest.json has another purpose. Settings and card,
    which their owner may edit, are not compared; they are validated when they are read.
    """
    if not _has_manifest(Path(folder)):
        return
    if damage := find_damage(folder, is_read=lambda name: _LOADED.fullmatch(name) is not None):
        raise RankLLMError(
            f"{folder}: {damage}; copy it again from its source or, if it was changed on purpose, delete "
            f"{MANIFEST_NAME}"
        )


def _has_manifest(folder: Path) -> bool:
    path = folder / MANIFEST_NAME
    if not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            found = json.loads(stream.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return True  # damaged, as reading it will report
    return isinstance(found, dict) and len(_KEYS & found.keys()) > 1

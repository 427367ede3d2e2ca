"""Manifests of model folders: the size and SHA-256 of each file, so that damage is found before anything is loaded.

`manifest.json` is written last, after every file it lists has reached the disk:

    {"format": 1, "step": 500, "files": {"model.safetensors": {"size": 1234, "sha256": "..."}, ...}, "sha256": "..."}

`files` holds paths relative to the folder, with `/` between their parts. The last `sha256` is of the manifest itself
without that entry, so a damaged manifest is not mistaken for a damaged file. README.md is not listed: it is prose, and
its owner may edit it.
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
"""Files hashed at once. hashlib releases the interpreter lock, and one core hashes more slowly than a disk reads."""
_MAX_BYTES = 64 * 2**20
"""A larger file is not a manifest."""
_KEYS = {"format", "files", "sha256"}
_LOADED = re.compile(r"((adapter_)?model|pytorch_model)\b.*\.(safetensors|bin)|tokenizer\.(json|model)")
"""Weights, in one file or several, and the tokenizer."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file as it was written."""

    size: int
    """Bytes."""
    sha256: str
    """Hexadecimal digest of the content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The files of a model folder, by path relative to it."""

    files: Mapping[str, FileEntry] = field(default_factory=dict)
    step: int | None = None
    """Optimizer steps behind the model, where they are known."""


def write_manifest(
    folder: str | Path, *, step: int | None = None, known: Mapping[str, FileEntry] | None = None
) -> Manifest:
    """List every file of a folder that is complete, and write the manifest into it.

    Each listed file, the manifest and the folder are on the disk when this returns. known: entries of files whose
    digest is at hand, which are not read again. Raises OSError where a file cannot be read or written.
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
    """The manifest of a folder. Raises DataError where it is missing, damaged or of another format."""
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
        raise DataError(f"is of format {found['format']}, expected {MANIFEST_FORMAT}; update rankllm", path=path)
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
    """What is wrong with the first damaged file of a folder, as `NAME: reason`; None where every byte is as written.

    is_read: which of the listed files matter to the caller, by their relative path; the others are not looked at.
    is_loaded: which files would be loaded where they are present; one of them that is not listed is damage, too.
    only_sizes: compare sizes alone, which finds missing and truncated files without reading any. A folder without a
    manifest is damaged.
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
    """SHA-256 of a file's bytes as 64 lower-case hexadecimal digits. Raises OSError where it cannot be read."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_file(path: str | Path) -> FileEntry:
    """Size and SHA-256 of a file, which is read in pieces. Raises OSError where it cannot be read."""
    return FileEntry(size=Path(path).stat().st_size, sha256=sha256_file(path))


def _size_fault(path: Path, expected: FileEntry) -> str | None:
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    return None if size == expected.size else f"is damaged ({size} bytes, {MANIFEST_NAME} says {expected.size})"


def _content_fault(path: Path, expected: FileEntry) -> str | None:
    try:
        is_whole = hash_file(path) == expected
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if is_whole else f"is damaged (its SHA-256 is not the one in {MANIFEST_NAME})"


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and _name(path, folder) not in _UNLISTED)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _render(manifest: Manifest) -> bytes:
    """The one way to write a manifest: reading compares with it, so no byte of the file can change unnoticed."""
    content: dict[str, Any] = {
        "format": MANIFEST_FORMAT,
        "step": manifest.step,
        "files": {name: asdict(entry) for name, entry in sorted(manifest.files.items())},
    }
    content["sha256"] = hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()
    return (json.dumps(content, indent=1) + "\n").encode("ascii")


def _sync(path: Path) -> None:
    # Windows syncs only what is open for writing.
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def check_intact(folder: str | Path) -> None:
    """Raise RankLLMError, in one line that names the file, where the weights or the tokenizer of a model are damaged.

    A folder without a manifest passes, and so does one whose manifest.json is of something else. Settings and card,
    which their owner may edit, are not compared: whoever reads them checks what they say.
    """
    if not _has_manifest(Path(folder)):
        return
    if damage := find_damage(folder, is_read=lambda name: _LOADED.fullmatch(name) is not None):
        raise RankLLMError(
            f"{folder}: {damage}; restore it from where it was copied, or, if it was changed on purpose, delete "
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
        return True  # damaged, which reading it says
    return isinstance(found, dict) and len(_KEYS & found.keys()) > 1

"""Atomic and durable writing of files: checks beforehand, writing, permissions."""

from __future__ import annotations

import errno
import gzip
import io
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rankllm_core.errors import ConfigError, RankLLMError

_LONGEST_NAME_BYTES = 255
"""Maximum length of one path component on common file systems."""
_READ_WRITE_MODE = 0o666
_EXECUTE_MODE = 0o111
_DISK_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES})


@contextmanager
def write_text(path: str | Path) -> Iterator[IO[str]]:
    """Write a UTF-8 text file that appears under its name only if the block ends without an error.

    The file and its folder are synced to disk first. Symbolic links are followed: their target is replaced, not the
    link. `.gz` names are compressed. Raises RankLLMError if the file cannot be written, and for `.xz`, `.bz2` and
    `.zst` names.
    """
    _check_name(path)
    target = _target(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own, because the target's name with a suffix could be too long.
        handle, name = tempfile.mkstemp(prefix=".rankllm-", suffix=".part", dir=target.parent)
    except OSError as error:
        raise RankLLMError(f"{path}: cannot be written ({error.strerror})") from None
    try:
        with os.fdopen(handle, "wb") as raw:
            with _text_into(raw, is_packed=Path(path).suffix == ".gz") as stream:
                yield stream
            raw.flush()
            os.fsync(raw.fileno())
        os.chmod(name, 0o666 & ~umask())
        os.replace(name, target)
        sync_folder(target.parent)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and (error.errno in _DISK_TROUBLE or error.filename == name):
            raise RankLLMError(f"{path}: cannot be written ({error.strerror})") from None
        raise


@contextmanager
def _text_into(raw: IO[bytes], *, is_packed: bool) -> Iterator[IO[str]]:
    """Return a text stream that writes into `raw` and leaves it open."""
    packed: Any = gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") if is_packed else raw
    stream = io.TextIOWrapper(packed, encoding="utf-8", newline="\n")
    try:
        yield stream
        stream.flush()
    finally:
        stream.detach()
        if is_packed:
            packed.close()


def sync_folder(path: str | Path) -> None:
    """Make renames in a folder durable: without it, a power failure can undo a completed rename.

    Does nothing on Windows and on file systems that cannot sync folders.
    """
    if os.name == "nt":
        return
    handle = None
    try:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        if handle is not None:
            os.close(handle)


def check_outputs(outputs: Sequence[Path | None], sources: Sequence[Path | str | None], *, overwrite: bool) -> None:
    """Raise RankLLMError if an output exists, cannot be written, is an input, or is named twice."""
    named = [path for path in outputs if path is not None]
    for path in named:
        check_output(path, overwrite=overwrite)
        for source in sources:
            if source is not None:
                refuse_same_file(source, path)
    if len({path.resolve() for path in named}) < len(named):
        raise ConfigError(f"{named[-1]}: is named for two outputs; give each its own file")


def check_output(path: str | Path, *, overwrite: bool) -> None:
    """Raise RankLLMError if `path` cannot be written, or if it exists and must not be replaced.

    Called before any work, so that no result is computed that cannot be saved.
    """
    _check_name(path)
    path = Path(path)
    try:
        _check_place(path, overwrite=overwrite)
    except OSError as error:  # for instance a path that is too long, or a loop of links
        raise RankLLMError(f"{path}: cannot be written ({error.strerror})") from None


def _check_place(path: Path, *, overwrite: bool) -> None:
    if path.is_dir():
        raise RankLLMError(f"{path}: expected an output file, found a folder")
    if path.exists() and not path.is_file():
        raise RankLLMError(f"{path}: expected an output file, found a device or a pipe")
    if path.exists() and not overwrite:
        raise RankLLMError(f"{path}: already exists; use --overwrite to replace it, or another name")
    # Missing folders are created on writing, inside the nearest existing one.
    target = _target(path)
    folder = next(parent for parent in target.parents if parent.exists())
    if not folder.is_dir():
        raise RankLLMError(f"{path}: cannot be written ({folder} is not a folder)")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RankLLMError(f"{path}: cannot be written (no permission to write in {folder})")


def refuse_same_file(source: str | Path, target: str | Path) -> None:
    """Raise RankLLMError if the output is the input, which writing would destroy."""
    source, target = Path(source), Path(target)
    try:
        is_same = source.exists() and target.exists() and source.samefile(target)
    except (OSError, ValueError):
        return  # inaccessible files are rejected when they are opened
    if is_same:
        raise RankLLMError(f"{target}: is both input and output; write to another file")


def _check_name(path: str | Path) -> None:
    """Raise RankLLMError for an invalid output file name."""
    text = os.fspath(path)
    if not text:
        raise RankLLMError("the name of an output file is empty; give a file name")
    if "\x00" in text:
        raise RankLLMError(f"{path}: contains a null character, which file names cannot")
    long = next((part for part in Path(text).parts if len(os.fsencode(part)) > _LONGEST_NAME_BYTES), None)
    if long is not None:
        size = len(os.fsencode(long))
        raise RankLLMError(f"{long[:40]}...: the name has {size} bytes, expected at most {_LONGEST_NAME_BYTES}")
    suffix = Path(text).suffix
    if suffix in (".xz", ".bz2", ".zst"):
        raise RankLLMError(f"{path}: writing {suffix} is not supported; use a .gz name, or an uncompressed file")


def _target(path: str | Path) -> Path:
    """Return the file that a path refers to, with links resolved. Raises RankLLMError for a loop of links."""
    target = Path(os.path.realpath(path))
    if os.path.islink(target):
        raise RankLLMError(f"{path}: is a symbolic link that points back to itself; remove it")
    return target


def follow_umask(path: str | Path) -> None:
    """Give a file, or a folder and everything in it, the permissions that a plain `open` or `mkdir` would give.

    safetensors creates weights with owner-only permissions (0600), as `tempfile` does, so a server running as another
    user could not read them. Folders get 0777 and files 0666 minus the umask; files executable by their owner stay
    executable. Symbolic links and their targets are left alone, since the hub's cache consists of them.
    Raises FileNotFoundError if the path does not exist, and OSError if the permissions cannot be changed.
    """
    root = Path(path)
    mask = umask()
    _follow(root, mask)
    if root.is_dir() and not root.is_symlink():
        for folder, names, files in os.walk(root):
            for name in (*names, *files):
                _follow(Path(folder, name), mask)


def _follow(path: Path, mask: int) -> None:
    mode = path.lstat().st_mode
    if stat.S_ISDIR(mode):
        wanted = (_READ_WRITE_MODE | _EXECUTE_MODE) & ~mask
    elif stat.S_ISREG(mode):
        wanted = (_READ_WRITE_MODE | (_EXECUTE_MODE if mode & stat.S_IXUSR else 0)) & ~mask
    else:
        return
    # Set-user-ID, set-group-ID (inherited by shared folders) and sticky bits are kept.
    wanted |= stat.S_IMODE(mode) & ~(_READ_WRITE_MODE | _EXECUTE_MODE)
    if wanted != stat.S_IMODE(mode):
        path.chmod(wanted)


def umask() -> int:
    """Return the process's umask. The mask is set and restored, as POSIX has no call that only reads it."""
    current = os.umask(0)
    os.umask(current)
    return current

"""Files that appear whole or not at all, and stay after a power cut: checks beforehand, writing, permissions."""

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
"""Of one name in a path, on every common file system."""
_READ_WRITE_MODE = 0o666
_EXECUTE_MODE = 0o111
_DISK_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EACCES})


@contextmanager
def write_text(path: str | Path) -> Iterator[IO[str]]:
    """Write a UTF-8 text file that appears under its name only when the block ends without an error.

    The file and its folder are synced to the disk first. A link is followed: the file that it names is replaced, not
    the link. `.gz` names are compressed. Raises RankLLMError when the file cannot be written, and for `.xz`, `.bz2`
    and `.zst` names.
    """
    _check_name(path)
    target = _target(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: the target's with something added could be too long.
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
    """A text stream that writes into `raw` and leaves it open."""
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
    """Make the names in a folder last: without it, a power cut can undo a rename that has returned.

    Does nothing on Windows and on file systems that sync no folders.
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
    """Raise RankLLMError where an output exists, cannot be written, is an input, or is named twice."""
    named = [path for path in outputs if path is not None]
    for path in named:
        check_output(path, overwrite=overwrite)
        for source in sources:
            if source is not None:
                refuse_same_file(source, path)
    if len({path.resolve() for path in named}) < len(named):
        raise ConfigError(f"{named[-1]}: is to hold two outputs; give each a file of its own")


def check_output(path: str | Path, *, overwrite: bool) -> None:
    """Raise RankLLMError where writing `path` cannot succeed, or would replace a file without leave.

    Called before the work begins, so that nothing is computed that cannot be kept.
    """
    _check_name(path)
    path = Path(path)
    try:
        _check_place(path, overwrite=overwrite)
    except OSError as error:  # a path that is too long as a whole, a loop of links
        raise RankLLMError(f"{path}: cannot be written ({error.strerror})") from None


def _check_place(path: Path, *, overwrite: bool) -> None:
    if path.is_dir():
        raise RankLLMError(f"{path}: is a folder, expected the name of a file to write")
    if path.exists() and not path.is_file():
        raise RankLLMError(f"{path}: is a device or a pipe, expected the name of a file to write")
    if path.exists() and not overwrite:
        raise RankLLMError(f"{path}: exists; use --overwrite to replace it, or another name")
    # Folders that are missing are made when the file is written, in the nearest one that is there.
    target = _target(path)
    folder = next(parent for parent in target.parents if parent.exists())
    if not folder.is_dir():
        raise RankLLMError(f"{path}: cannot be written ({folder} is not a folder)")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RankLLMError(f"{path}: cannot be written (no permission to write in {folder})")


def refuse_same_file(source: str | Path, target: str | Path) -> None:
    """Raise RankLLMError where the output is the input, which writing would destroy."""
    source, target = Path(source), Path(target)
    try:
        is_same = source.exists() and target.exists() and source.samefile(target)
    except (OSError, ValueError):
        return  # what cannot be looked at is refused where it is opened
    if is_same:
        raise RankLLMError(f"{target}: is the input as well as the output; write to another name")


def _check_name(path: str | Path) -> None:
    """Raise RankLLMError for what cannot be the name of a file to write."""
    text = os.fspath(path)
    if not text:
        raise RankLLMError("the name of an output file is empty; give a file name")
    if "\x00" in text:
        raise RankLLMError(f"{path}: holds a null character, which no file name can")
    long = next((part for part in Path(text).parts if len(os.fsencode(part)) > _LONGEST_NAME_BYTES), None)
    if long is not None:
        size = len(os.fsencode(long))
        raise RankLLMError(f"{long[:40]}...: name of {size} bytes, expected at most {_LONGEST_NAME_BYTES}")
    suffix = Path(text).suffix
    if suffix in (".xz", ".bz2", ".zst"):
        raise RankLLMError(f"{path}: writing {suffix} is not supported; give it a .gz name, or none of a packed file")


def _target(path: str | Path) -> Path:
    """The file that a path names, links followed. Raises RankLLMError where they lead in a circle."""
    target = Path(os.path.realpath(path))
    if os.path.islink(target):
        raise RankLLMError(f"{path}: is a symbolic link that points back to itself; remove it")
    return target


def follow_umask(path: str | Path) -> None:
    """Give a file, or a folder and everything in it, the permissions that a plain `open` or `mkdir` would have given.

    safetensors creates weights readable by their owner alone (0600), as `tempfile` does, so a server that runs as
    another user finds a model without weights. Folders get 0777 and files 0666 less the umask; a file that its owner
    may execute stays executable. Symbolic links and what they point to are left alone: the hub's cache is made of them.
    Raises FileNotFoundError where the path does not exist, and OSError where the permissions cannot be changed.
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
    # Set-user-ID, set-group-ID (inherited by shared folders) and sticky bits stay as they are.
    wanted |= stat.S_IMODE(mode) & ~(_READ_WRITE_MODE | _EXECUTE_MODE)
    if wanted != stat.S_IMODE(mode):
        path.chmod(wanted)


def umask() -> int:
    """Return the process's umask. The mask is set and restored, as POSIX has no call that only reads it."""
    current = os.umask(0)
    os.umask(current)
    return current

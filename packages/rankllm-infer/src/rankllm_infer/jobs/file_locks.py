"""Opens a file under an exclusive lock that the operating system drops with its process, on every platform."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from rankllm_core.errors import RankLLMError

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def open_locked(path: Path) -> tuple[int, bool]:
    """Open a file to read and write, created where it is missing, and lock it until the descriptor is closed.

    Returns the descriptor and whether it is locked: some file systems have no locks. A symbolic link is never followed,
    since it could lead to somebody else's file. Raises RankLLMError for a link or anything but a file, and where
    another process has the lock; OSError where the file cannot be opened.
    """
    while True:
        # O_NOFOLLOW is not on every platform; where it is, it also stops a link that is made right now.
        if path.is_symlink():
            raise RankLLMError(f"{path}: is a symbolic link, which is not written through; remove it")
        handle = os.open(path, _FLAGS, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise RankLLMError(f"{path}: is not a file; remove it")
            is_locked = _lock(handle, path)
            # A process that had it locked until now may have deleted it in the meantime.
            if _is_at(handle, path):
                return handle, is_locked
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def delete_locked(handle: int, path: Path) -> None:
    """Delete a file that `open_locked` opened. Raises OSError where it cannot be deleted; closes it either way."""
    if os.name == "nt":
        # An open file cannot be deleted there; one that another process has opened meanwhile is left to that one.
        os.close(handle)
        path.unlink(missing_ok=True)
        return
    try:
        # Under the lock: no other process can be at work on a file of this name.
        path.unlink(missing_ok=True)
    finally:
        os.close(handle)


def _lock(handle: int, path: Path) -> bool:
    from filelock import lock_descriptor

    try:
        if lock_descriptor(handle, blocking=False):
            return True
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    raise RankLLMError(f"{path}: another process is at work on this output; wait for it, or write to another name")


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False

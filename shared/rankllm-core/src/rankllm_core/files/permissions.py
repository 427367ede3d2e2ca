"""Permissions of the files that other libraries write: those that the user's umask asks for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_READ_WRITE = 0o666
_EXECUTE = 0o111


def umask() -> int:
    """Return the process's umask. The mask is set and restored, as POSIX has no call that only reads it."""
    current = os.umask(0)
    os.umask(current)
    return current


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
        wanted = (_READ_WRITE | _EXECUTE) & ~mask
    elif stat.S_ISREG(mode):
        wanted = (_READ_WRITE | (_EXECUTE if mode & stat.S_IXUSR else 0)) & ~mask
    else:
        return
    # Set-user-ID, set-group-ID (inherited by shared folders) and sticky bits stay as they are.
    wanted |= stat.S_IMODE(mode) & ~(_READ_WRITE | _EXECUTE)
    if wanted != stat.S_IMODE(mode):
        path.chmod(wanted)

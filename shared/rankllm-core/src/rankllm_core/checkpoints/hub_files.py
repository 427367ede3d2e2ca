"""Data files of a split, for data set repositories that contain a loading script.

`datasets` 4 and later do not run scripts and reject such a repository, even if its data are plain files. The data sets
of the original projects are among them: Tevatron/msmarco-passage (train.jsonl.gz, dev.jsonl.gz, ...) and its corpus
(corpus.jsonl.gz).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from rankllm_core.errors import RankLLMError

MAIN, PARQUET = "main", "refs/convert/parquet"
"""Revisions with a repository's own files, and with the hub's conversion of them."""
_ENDINGS = re.compile(r"\.(?:(?:jsonl|ndjson|json|tsv)(?:\.gz|\.xz)?|parquet)$")
_NO_DATA = {"dataset_infos", "dataset_info", "dataset_dict", "state", "config", "metadata", "package"}
"""Stems of JSON files that describe a repository instead of containing data."""
_OTHER_SPLIT = re.compile(r"(?:^|[-_./])(?:dev|val|valid|validation|test|testing|eval|dl\d\d)(?:[-_./]|$)")
_SHARD = re.compile(r"[-_.]\d+(?:[-_.]of[-_.]\d+)?$")
_MOST_NAMED = 10


class Repository(Protocol):
    """Files of a data set, in a folder or on a hub."""

    name: str

    def files(self, revision: str) -> Sequence[str]:
        """Return the paths of a revision's files, with `/`; empty if there is no such revision."""

    def fetch(self, file: str, revision: str) -> Path:
        """Return a file's local path, downloading it if needed."""


class FolderRepository:
    """Repository that was cloned or downloaded."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder

    def files(self, revision: str) -> Sequence[str]:
        """Return all files of the folder except hidden ones."""
        if revision != MAIN:
            return ()
        paths = (path.relative_to(self._folder) for path in self._folder.rglob("*") if path.is_file())
        return sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))

    def fetch(self, file: str, revision: str) -> Path:
        """Return the file's own path."""
        return self._folder / file


def is_refused_script(error: BaseException) -> bool:
    """Whether `datasets.load_dataset` rejected a repository because of its script, which it does not run."""
    return isinstance(error, RuntimeError) and "scripts are no longer supported" in str(error)


def fetch_split(repository: Repository, *, split: str, config: str = "") -> tuple[Path, ...]:
    """Return the local files of a split in order: the repository's own, else the hub's Parquet files.

    config: a part of the data set with its own folder or file. The hub's conversion comes second because it omits
    everything beyond 5 GB of a split.
    Raises RankLLMError naming the files found if none can be identified as the split.
    """
    seen: list[str] = []
    for revision in (MAIN, PARQUET):
        names = repository.files(revision)
        found = split_files(names, split=split, config=config)
        if found:
            return tuple(repository.fetch(name, revision) for name in found)
        seen += [name for name in names if _stem(name) is not None]
    seen.sort()
    there = ", ".join(seen[:_MOST_NAMED]) + (", ..." if len(seen) > _MOST_NAMED else "")
    part = f"split {split!r}" + (f" of {config!r}" if config else "")
    raise RankLLMError(
        f"{repository.name}: contains a loading script, which is not run, and no data file named for the {part} "
        f"({there or 'no data files at all'}); download the file you need and give its path"
    )


def split_files(names: Iterable[str], *, split: str, config: str = "") -> tuple[str, ...]:
    """Return the data files of a split, sorted; empty if they cannot be identified.

    They are files named for the split (`dev.jsonl.gz`, `dev-00000-of-00002.json`) or in a folder of its name. If no
    file is named so, the split `train` is the only file, or all shards of it, since a corpus has no other split. Files
    of that kind in several folders are parts of a data set, and `config` must select one.
    """
    stems = {name: stem for name in sorted(names) if (stem := _stem(name)) is not None}
    if config:
        stems = {name: stem for name, stem in stems.items() if config in (*PurePosixPath(name).parts[:-1], stem)}
    named = [name for name, stem in stems.items() if split in (stem, *PurePosixPath(name).parts[:-1])]
    if not named and split == "train":
        only = {(PurePosixPath(name).parent, stem) for name, stem in stems.items()}
        if len(only) == 1 and not _OTHER_SPLIT.search(next(iter(stems))):
            named = list(stems)
    folders = {name: tuple(part for part in PurePosixPath(name).parts[:-1] if part != split) for name in named}
    # Of several parts, use the one at the top level, or the hub's default.
    part = next((part for part in ((), ("default",)) if part in folders.values()), None)
    if part is None and len(set(folders.values())) > 1:
        return ()
    kept = [name for name in named if part in (None, folders[name])]
    # If the same data exists in two formats, read one.
    best = min((_format(name) for name in kept), default="")
    return tuple(name for name in kept if _format(name) == best)


def _stem(name: str) -> str | None:
    """Return the name of a data file without shard numbers; None for any other file."""
    base = PurePosixPath(name).name
    if any(part.startswith(".") for part in PurePosixPath(name).parts) or not (ending := _ENDINGS.search(base)):
        return None
    stem = _SHARD.sub("", base[: ending.start()])
    return None if stem in _NO_DATA else stem


def _format(name: str) -> str:
    ending = _ENDINGS.search(name)
    return "" if ending is None else ending.group().removeprefix(".")

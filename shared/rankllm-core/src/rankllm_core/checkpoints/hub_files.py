"""Which files of a data set's repository hold a split, for repositories that come with a loading script.

`datasets` 4 and later runs no scripts and refuses such a repository, though its data are plain files. The data sets of
the original projects are among them: Tevatron/msmarco-passage (train.jsonl.gz, dev.jsonl.gz, ...) and its corpus
(corpus.jsonl.gz).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from rankllm_core.errors import RankLLMError

MAIN, PARQUET = "main", "refs/convert/parquet"
"""The revision with a repository's own files, and the one that the hub converts them into."""
_ENDINGS = re.compile(r"\.(?:(?:jsonl|ndjson|json|tsv)(?:\.gz|\.xz)?|parquet)$")
_NO_DATA = {"dataset_infos", "dataset_info", "dataset_dict", "state", "config", "metadata", "package"}
"""Stems of JSON files that describe a repository."""
_OTHER_SPLIT = re.compile(r"(?:^|[-_./])(?:dev|val|valid|validation|test|testing|eval|dl\d\d)(?:[-_./]|$)")
_SHARD = re.compile(r"[-_.]\d+(?:[-_.]of[-_.]\d+)?$")
_MOST_NAMED = 10


class Repository(Protocol):
    """A data set's files: in a folder, or on a hub."""

    name: str

    def files(self, revision: str) -> Sequence[str]:
        """Paths of the files of a revision, with `/`; none where there is no such revision."""

    def fetch(self, file: str, revision: str) -> Path:
        """Return a file's path on this machine, downloading it if needed."""


class FolderRepository:
    """A repository that was cloned or downloaded."""

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder

    def files(self, revision: str) -> Sequence[str]:
        """All files of the folder, hidden ones left out."""
        if revision != MAIN:
            return ()
        paths = (path.relative_to(self._folder) for path in self._folder.rglob("*") if path.is_file())
        return sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))

    def fetch(self, file: str, revision: str) -> Path:
        """The file's own path."""
        return self._folder / file


def is_refused_script(error: BaseException) -> bool:
    """Whether an error of `datasets.load_dataset` says that the repository holds a script, which it does not run."""
    return isinstance(error, RuntimeError) and "scripts are no longer supported" in str(error)


def fetch_split(repository: Repository, *, split: str, config: str = "") -> tuple[Path, ...]:
    """Return the files of a split in their order, on this machine: the repository's own, else the hub's Parquet files.

    config: a part of the data set that has a folder, or a file, of its own. The hub's conversion comes second because
    it leaves out what is beyond 5 GB of a split.
    Raises RankLLMError that names what there is where no file can be told to hold the split.
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
        f"{repository.name}: holds a loading script, which is not run, and no data file that is named for the {part} "
        f"({there or 'no data files at all'}); download the file that you want and give its path"
    )


def split_files(names: Iterable[str], *, split: str, config: str = "") -> tuple[str, ...]:
    """Return the data files that hold a split, sorted; none where that cannot be told.

    Those are files named for the split (`dev.jsonl.gz`, `dev-00000-of-00002.json`) or in a folder of its name. The
    split `train` is, where no file is named so, the only file there is, or all shards of it: a corpus has no other
    split. Files of that kind in several folders are parts of a data set, and `config` has to name one.
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
    # Of several parts, one is wanted: the one at the top, or the hub's own name for it.
    part = next((part for part in ((), ("default",)) if part in folders.values()), None)
    if part is None and len(set(folders.values())) > 1:
        return ()
    kept = [name for name in named if part in (None, folders[name])]
    # The same data in two formats is read once.
    best = min((_format(name) for name in kept), default="")
    return tuple(name for name in kept if _format(name) == best)


def _stem(name: str) -> str | None:
    """What a data file is named for, shard numbers left out; None for any other file."""
    base = PurePosixPath(name).name
    if any(part.startswith(".") for part in PurePosixPath(name).parts) or not (ending := _ENDINGS.search(base)):
        return None
    stem = _SHARD.sub("", base[: ending.start()])
    return None if stem in _NO_DATA else stem


def _format(name: str) -> str:
    ending = _ENDINGS.search(name)
    return "" if ending is None else ending.group().removeprefix(".")

"""Sources of training records: a file, or a Hugging Face data set by name or folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from rankllm_core.checkpoints.hub_files import FolderRepository, Repository, fetch_split, is_refused_script
from rankllm_core.data.hub_repository import HubRepository
from rankllm_core.errors import DataError, MissingPackageError, RankLLMError, first_line
from rankllm_train.data.bad_records import BadRecords
from rankllm_train.data.json_records import JsonRecord, read_json_records
from rankllm_train.data.records import ListwiseRecord, PointwiseRecord, parse_listwise, parse_pointwise

Record = TypeVar("Record", ListwiseRecord, PointwiseRecord)
_Row = tuple[int, Mapping[str, object] | DataError]


def listwise_source(name_or_path: str, *, limit: int = 0, bad: BadRecords | None = None) -> Iterator[ListwiseRecord]:
    """Yield the listwise records of a file or data set; the first `limit`, or all if it is 0.

    bad: collects records that cannot be parsed; None: they are errors.
    """
    return _records(name_or_path, parse_listwise, limit=limit, bad=bad or BadRecords())


def pointwise_source(name_or_path: str, *, limit: int = 0, bad: BadRecords | None = None) -> Iterator[PointwiseRecord]:
    """Yield the pointwise records of a file or data set, as `listwise_source` does."""
    return _records(name_or_path, parse_pointwise, limit=limit, bad=bad or BadRecords())


def source_rows(name_or_path: str) -> Iterator[tuple[int, Mapping[str, object] | DataError]]:
    """Yield (line or row, object) for everything in a file or data set, with a DataError in place of a non-object."""
    return _rows(name_or_path)


def _records(name: str, parse: Callable[..., Record], *, limit: int, bad: BadRecords) -> Iterator[Record]:
    for line, value in islice(_rows(name), limit or None):
        bad.n_read += 1
        try:
            if isinstance(value, DataError):
                raise value
            record = parse(value, path=name, line=line)
        except DataError as problem:
            bad.refuse(problem)
            continue
        yield record


def _rows(name: str) -> Iterator[_Row]:
    path = Path(name)
    if path.is_dir():
        yield from _data_set_rows(str(path))
        return
    if path.exists():
        yield from ((record.line, record.value) for record in read_json_records(path))
        return
    # A hub name is `owner/name`; anything that looks like a file name was meant as one.
    if (
        path.suffix in (".json", ".jsonl", ".gz", ".xz", ".bz2", ".zst")
        or name.startswith((".", "/", "~"))
        or name.count("/") > 1
    ):
        raise RankLLMError(f"{name}: no such file")
    yield from _data_set_rows(name)


def _data_set_rows(name: str) -> Iterator[_Row]:
    """Yield the rows of the split `train`, numbered from 1."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise MissingPackageError(
            f"data set {name!r} needs the package datasets, which is not installed. Install it with: uv add datasets"
        ) from None
    rows: Iterable[Any]
    try:
        rows = load_dataset(name, split="train")
    except (OSError, ValueError, RuntimeError) as error:
        rows = _rows_of_files(name, error)
    for number, row in enumerate(rows, start=1):
        # Rows of a JSON file have their own numbers, and may be damaged.
        yield number, row.value if isinstance(row, JsonRecord) else row


def _rows_of_files(name: str, error: Exception) -> Iterable[Any]:
    """Return the rows of a repository's data files, if `datasets` rejects it for its script or cannot reach the hub.

    Raises RankLLMError if there are none.
    """
    folder = Path(name)
    repository: Repository = FolderRepository(folder) if folder.is_dir() else HubRepository(name)
    files: tuple[Path, ...] = ()
    if is_refused_script(error):
        files = fetch_split(repository, split="train")
    elif isinstance(error, ConnectionError) and not folder.is_dir():
        with suppress(RankLLMError):  # not in the hub's cache either: the first error is more informative
            files = fetch_split(repository, split="train")
    if not files:
        reason = first_line(error, with_kind=False)
        raise RankLLMError(
            f"{name}: neither a file nor an available data set on the hub ({reason}); give another --train-dataset-path"
        )
    if files[0].suffix == ".parquet":
        from datasets import load_dataset

        rows: Iterable[Any] = load_dataset("parquet", data_files=[str(path) for path in files], split="train")
        return rows
    return (record for path in files for record in read_json_records(path))

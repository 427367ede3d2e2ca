"""Where training records come from: a file, or a Hugging Face data set by its name or its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from rankllm_core.errors import DataError, MissingPackageError, RankLLMError
from rankllm_train.json_records import read_json_records
from rankllm_train.records import ListwiseRecord, PointwiseRecord, parse_listwise, parse_pointwise

Record = TypeVar("Record", ListwiseRecord, PointwiseRecord)
_Row = tuple[int, Mapping[str, object] | DataError]


def listwise_source(name_or_path: str, *, limit: int = 0, skip_bad: bool = False) -> Iterator[ListwiseRecord]:
    """The listwise records of a file or a data set; the first `limit`, or all where it is 0."""
    return _records(name_or_path, parse_listwise, limit=limit, skip_bad=skip_bad)


def pointwise_source(name_or_path: str, *, limit: int = 0, skip_bad: bool = False) -> Iterator[PointwiseRecord]:
    """The pointwise records of a file or a data set; the first `limit`, or all where it is 0."""
    return _records(name_or_path, parse_pointwise, limit=limit, skip_bad=skip_bad)


def _records(name: str, parse: Callable[..., Record], *, limit: int, skip_bad: bool) -> Iterator[Record]:
    rows = islice(_rows(name), limit or None)
    for line, value in rows:
        try:
            if isinstance(value, DataError):
                raise value
            yield parse(value, path=name, line=line)
        except DataError:
            if not skip_bad:
                raise


def _rows(name: str) -> Iterator[_Row]:
    path = Path(name)
    if path.is_dir():
        yield from enumerate(_hub_rows(str(path)), start=1)
        return
    if path.exists():
        yield from ((record.line, record.value) for record in read_json_records(path))
        return
    # A hub name is `owner/name`; anything that looks like a file was meant as one.
    if (
        path.suffix in (".json", ".jsonl", ".gz", ".xz", ".bz2", ".zst")
        or name.startswith((".", "/", "~"))
        or name.count("/") > 1
    ):
        raise RankLLMError(f"{name}: no such file")
    yield from enumerate(_hub_rows(name), start=1)


def _hub_rows(name: str) -> Iterator[Mapping[str, Any]]:
    """Rows of the split `train`."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise MissingPackageError(f"data set {name!r} needs the package datasets: uv add datasets") from None
    try:
        rows = load_dataset(name, split="train")
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RankLLMError(
            f"{name}: neither a file nor a data set that can be had from the hub ({reason[:200]}); "
            "give another --train-dataset-path"
        ) from None
    yield from rows

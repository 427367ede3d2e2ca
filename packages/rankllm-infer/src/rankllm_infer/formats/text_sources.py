"""Texts of queries and passages: from a file, from a Hugging Face dataset by name or folder, or from a stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from rankllm_core.checkpoints.hub_files import FolderRepository, Repository, fetch_split, is_refused_script
from rankllm_core.data.collections import collect_queries, parse_corpus_record, read_corpus, read_queries
from rankllm_core.data.hub_repository import HubRepository
from rankllm_core.errors import DataError, MissingPackageError, RankLLMError, first_line
from rankllm_core.files import read_lines
from rankllm_core.files.json_text import as_id, check_value, json_problem, located

_FILE_ENDINGS = (".tsv", ".txt", ".csv", ".jsonl", ".json", ".ndjson", ".parquet", ".gz", ".xz", ".bz2", ".zst", ".zip")


def load_queries(source: str | Path, split: str) -> dict[str, str]:
    """Read qid -> text from a file or from a split of a Hugging Face dataset."""
    if is_file(source):
        return read_queries(source)
    rows = _data_set_rows(str(source), split)
    if isinstance(rows, tuple):
        return {qid: text for path in rows for qid, text in read_queries(path).items()}
    return collect_queries(enumerate(rows, start=1), source=source)


def load_corpus(source: str | Path) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Stream (docid, document) from a file or from the split `train` of a Hugging Face dataset."""
    if is_file(source):
        yield from read_corpus(source)
        return
    rows = _data_set_rows(str(source), "train")
    if isinstance(rows, tuple):
        for path in rows:
            yield from read_corpus(path)
        return
    for number, row in enumerate(rows, start=1):
        with located(source, number):
            passage = parse_corpus_record(row)
        yield passage


def is_file(source: str | Path) -> bool:
    """Return whether the source is a file, as opposed to a dataset: a folder, or a hub name with at most one slash."""
    name = str(source)
    if Path(source).exists():
        return not Path(source).is_dir()
    looks_like_path = name.endswith(_FILE_ENDINGS) or name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_like_path or isinstance(source, Path):
        raise RankLLMError(f"{name}: no such file")
    return False


def _data_set_rows(name: str, split: str) -> Iterable[dict[str, object]] | tuple[Path, ...]:
    """Yield the rows of a Hugging Face dataset from a memory-mapped local copy.

    If `datasets` refuses it because of its loading script, or cannot reach the hub, returns the files of the split
    instead, provided they can be determined and have a format of `read_queries` and `read_corpus`.
    """
    is_folder = Path(name).exists()
    what = f"{name}: is a folder," if is_folder else f"{name}: no such file,"
    try:
        import datasets
    except ModuleNotFoundError:
        raise MissingPackageError(
            f"{what} and loading it as a dataset needs the package datasets, which is not installed. "
            "Install it with: uv add 'rankllm-infer[datasets]'"
        ) from None
    path, _, config = (name, "", "") if is_folder else name.partition(":")
    rows: Iterable[dict[str, object]]
    try:
        rows = datasets.load_dataset(path, config or None, split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        files = _files_of_split(path, error, split=split, config=config)
        if files and files[0].suffix != ".parquet":
            return files
        if files:
            rows = datasets.load_dataset("parquet", data_files=[str(file) for file in files], split="train")
            return rows
        # The generic error for a dataset that cannot be built adds nothing to its cause.
        told = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else error
        why = first_line(error if told is None else told, with_kind=False)
        raise RankLLMError(f"{what} and cannot be loaded as a dataset, split {split!r}: {why}") from None
    return rows


def _files_of_split(name: str, error: Exception, *, split: str, config: str) -> tuple[Path, ...]:
    """Return the files of a repository whose script `datasets` refuses or, without a network, those in the hub's
    cache."""
    folder = Path(name)
    repository: Repository = FolderRepository(folder) if folder.is_dir() else HubRepository(name)
    if is_refused_script(error):
        return fetch_split(repository, split=split, config=config)
    if isinstance(error, ConnectionError) and not folder.is_dir():
        with suppress(RankLLMError):  # not in the hub's cache either: the first error is more helpful
            return fetch_split(repository, split=split, config=config)
    return ()


def read_passages(path: str | Path, *, source: IO[bytes] | None = None) -> list[str | Mapping[str, object]]:
    """Read passages in order, for `make_request`: texts, or objects with `text` and optionally `docid`.

    source: stream to read instead of the path, which then only names it. Raises RankLLMError if there are no passages,
    DataError naming the line of an unreadable one.
    """
    lines = list(read_lines(path, source=source))
    if not lines:
        raise RankLLMError(f"{path}: found no passages, expected one per line")
    if not all(line.lstrip().startswith("{") for _, line in lines):
        return [line for _, line in lines]
    return [_passage(path, number, line) for number, line in lines]


def _passage(path: str | Path, number: int, line: str) -> Mapping[str, object]:
    try:
        doc: dict[str, object] = json.loads(line)
        check_value(doc, line)
    except (ValueError, RecursionError) as error:
        problem = error.msg if isinstance(error, json.JSONDecodeError) else json_problem(error)
        raise DataError(f"not JSON: {problem}", path=path, line=number) from None
    with located(path, number):
        return doc | ({"docid": as_id(doc["docid"], what="docid")} if "docid" in doc else {})

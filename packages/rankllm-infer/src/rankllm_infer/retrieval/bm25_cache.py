"""BM25 indexes on disk: built once per corpus and reused until corpus or settings change, or a file is damaged."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from rankllm_core.data.collections import lines_of_docid, read_corpus
from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.files.manifest import sha256_file
from rankllm_core.text import title_and_text as fields_of
from rankllm_infer.checkpoints.cache_folder import cache_folder
from rankllm_infer.retrieval.bm25 import K1, SAVED_FILES, B, BM25Index, RepeatedDocidError, title_and_text

_MANIFEST = "rankllm-bm25.json"
"""Records what the index was built from, with checksums of its files; written last, so that its presence marks a
complete folder."""
_FORMAT = 3
_FILES = "files_sha256"
_NAMES = {
    "corpus_sha256": "the corpus",
    "bm25s": "the version of bm25s",
    "PyStemmer": "the version of PyStemmer",
    "format": "the format",
}
"""How differences are described in messages."""
_ATTEMPTS = 3
"""Number of attempts to put an index in place while other processes do the same."""


def open_index(
    corpus: Path,
    *,
    folder: Path | None = None,
    k1: float = K1,
    b: float = B,
    tell: Callable[[str], None] = lambda line: None,
    progress: Callable[[int], None] = lambda number: None,
) -> BM25Index:
    """Return the index of a corpus: the one in `folder` if built from the same bytes with the same settings, else a new
    one.

    corpus: a file, see `read_corpus`. folder: contains this index only; by default a folder in the user's cache,
    separate for each file name and settings. tell: receives a line on what is done and why. progress: receives the
    number of documents indexed so far. A new index is written to a temporary folder and renamed, so the folder contains
    a complete index or none. Raises RankLLMError for a corpus that cannot be read or indexed, and for a folder with
    other contents.
    """
    if not corpus.is_file():
        raise RankLLMError(f"{corpus}: {'is not a file' if corpus.exists() else 'no such file'}")
    # Resolved, so that the target of a link is replaced instead of the link.
    folder = folder or _default_folder(corpus, k1, b)
    place = folder.resolve()
    try:
        wanted = _manifest(corpus, k1, b)
    except OSError as error:
        raise RankLLMError(f"{corpus}: cannot be read ({error.strerror})") from None
    index, problem = _load(place, wanted)
    if index is None:
        if problem:
            tell(f"Rebuilding the index in {folder}: {problem}")
        if place == Path.cwd():
            raise RankLLMError(f"{folder}: is the current folder; use another folder for the index")
        index = _build(corpus, k1, b, progress)
        if (theirs := _put_in_place(index, place, wanted)) is None:
            tell(f"Built the index of {corpus} with {len(index.docids):,} documents in {folder}")
            return index
        index = theirs
    tell(f"Using the index of {corpus} in {folder}")
    return index


def stored_settings(folder: Path) -> tuple[float, float] | None:
    """Return (k1, b) of the index in a folder; None if there is no index yet or its manifest is damaged.

    Raises RankLLMError for a folder with other contents, like `open_index`.
    """
    try:
        found = _read_manifest(folder.resolve()) or {}
    except OSError as error:
        raise RankLLMError(f"{folder}: the index cannot be read ({error.strerror})") from None
    k1, b = found.get("k1"), found.get("b")
    return (float(k1), float(b)) if isinstance(k1, int | float) and isinstance(b, int | float) else None


def is_bm25_index(folder: Path) -> bool:
    """Return whether a folder contains a BM25 index of this package, complete or damaged."""
    return (folder / _MANIFEST).is_file()


def _build(corpus: Path, k1: float, b: float, progress: Callable[[int], None]) -> BM25Index:
    """Index a corpus. Raises DataError naming both lines for a docid that occurs twice."""
    try:
        return BM25Index.build(_documents(corpus, progress), k1=k1, b=b)
    except RepeatedDocidError as error:
        first, again, *_ = [*lines_of_docid(corpus, error.docid), None, None]
        problem = f"docid {error.docid!r} occurs twice (first on line {first}); docids must be unique"
        raise DataError(problem, path=corpus, line=again) from None


def _default_folder(corpus: Path, k1: float, b: float) -> Path:
    made_of = f"{_FORMAT}\n{corpus.resolve()}\n{k1!r}\n{b!r}"
    name = hashlib.sha256(made_of.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return cache_folder() / "bm25" / f"{corpus.name.partition('.')[0] or 'corpus'}-{name}"


def _manifest(corpus: Path, k1: float, b: float) -> dict[str, object]:
    made_with = {name: importlib.metadata.version(name) for name in ("bm25s", "PyStemmer")}
    return {"format": _FORMAT, "corpus_sha256": sha256_file(corpus), "k1": k1, "b": b, **made_with}


def _load(folder: Path, wanted: Mapping[str, object]) -> tuple[BM25Index, str] | tuple[None, str]:
    """Return the folder's index, or why it cannot be used; the reason is empty if there is none yet.

    Every byte is verified: in a damaged index, most queries would still find something, and scores are memory-mapped.
    Raises RankLLMError for a folder with other contents than an index.
    """
    try:
        found = _read_manifest(folder)
        if found is None:
            return None, ""
        if not found:
            return None, f"it is damaged ({_MANIFEST} cannot be read)"
        if problem := _difference(found, wanted) or _damage(folder, found.get(_FILES)):
            return None, problem
    except FileNotFoundError:  # another process has just moved the old index away
        return None, ""
    except OSError as error:
        raise RankLLMError(f"{folder}: the index cannot be read ({error.strerror}); see --index-dir") from None
    try:
        return BM25Index.load(folder), ""
    except (OSError, EOFError, ValueError, KeyError) as error:
        return None, f"it is damaged ({error})"


def _checksums(folder: Path) -> dict[str, str]:
    """Return the checksum of each file of an index."""
    return {name: sha256_file(folder / name) for name in sorted(SAVED_FILES)}


def _damage(folder: Path, checksums: object) -> str | None:
    """Describe how the files of an index have changed since they were written; None if they have not."""
    expected = checksums if isinstance(checksums, dict) else {}
    for name in sorted(SAVED_FILES):
        path = folder / name
        if not path.is_file():
            return f"it is damaged ({name} is missing)"
        if sha256_file(path) != expected.get(name):
            return f"it is damaged (the checksum of {name} does not match)"
    return None


def _read_manifest(folder: Path) -> Mapping[str, object] | None:
    """Return what the folder's index was built from; None if there is no index yet, {} if the manifest is truncated.

    Raises RankLLMError unless all files in the folder belong to an index, because a new index replaces them.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise RankLLMError(f"{folder}: is a file, expected a folder for the index")
    if any(folder.glob("segments_*")):
        raise RankLLMError(f"{folder}: contains a Lucene index; search it with --index {folder} instead of --corpus")
    paths = sorted(folder.iterdir())
    if not paths:
        return None
    ours = SAVED_FILES | {_MANIFEST}
    if foreign := [path.name for path in paths if path.name not in ours or path.is_dir()]:
        raise _foreign(folder, f"such as {foreign[0]}")
    if not (folder / _MANIFEST).exists():
        raise _foreign(folder, f"it has no {_MANIFEST}")
    try:
        found = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict) or not found.keys() >= {"format", "corpus_sha256"}:
        raise _foreign(folder, f"its {_MANIFEST} does not describe an index")
    return found


def _foreign(folder: Path, what: str) -> RankLLMError:
    return RankLLMError(f"{folder}: contains other files than an index ({what}); use a new folder for the index")


def _difference(found: Mapping[str, object], wanted: Mapping[str, object]) -> str | None:
    for name, value in wanted.items():
        if found.get(name) != value:
            if name in _NAMES:
                return f"{_NAMES[name]} has changed"
            return f"{name} was {found.get(name)}, is {value}"
    return None


def _documents(corpus: Path, progress: Callable[[int], None]) -> Iterator[tuple[str, str]]:
    for number, (docid, doc) in enumerate(read_corpus(corpus), start=1):
        title, text = fields_of(doc)
        progress(number)
        yield docid, title_and_text(title, text)


def _put_in_place(index: BM25Index, folder: Path, manifest: Mapping[str, object]) -> BM25Index | None:
    """Write an index to a temporary folder and rename it; return a matching index that another process put there
    meanwhile.

    Raises RankLLMError if it cannot be written, or if the folder now contains anything but an index.
    """
    aside: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        index.save(aside / "new")
        whole = {**manifest, _FILES: _checksums(aside / "new")}
        (aside / "new" / _MANIFEST).write_text(json.dumps(whole), encoding="utf-8")
        for attempt in range(_ATTEMPTS):
            if _rename_new(aside / "new", folder):
                return None
            theirs, _ = _load(folder, manifest)
            if theirs is not None:
                return theirs
            # Another process that is also replacing it may have moved it away.
            with contextlib.suppress(FileNotFoundError):
                folder.rename(aside / f"old{attempt}")
        raise RankLLMError(
            f"{folder}: other processes are writing different indexes here; use a separate folder for each"
        )
    except OSError as error:
        raise RankLLMError(f"{folder}: the index cannot be written ({error.strerror}); see --index-dir") from None
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _rename_new(new: Path, folder: Path) -> bool:
    """Rename a folder; return False if the target exists and is not empty."""
    try:
        os.rename(new, folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True

"""Store for the passages of training records: a temporary file, indexed by docid, so that memory holds only ids."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Collection, Iterable
from pathlib import Path
from types import TracebackType
from typing import IO

from rankllm_core.data.collections import read_corpus, two_contents
from rankllm_core.errors import RankLLMError
from rankllm_core.text import title_and_text
from rankllm_train.data.sameness import digest, exact_form
from rankllm_train.preparation.tally import Track, untracked

_IN_MEMORY_BYTES = 64 << 20
"""Smaller collections are never written to disk."""


class RepeatedDocidError(RankLLMError):
    """A docid that occurs with two different passages."""


class PassageStore:
    """Titles and texts on disk. A context manager: the file is deleted at the end of the block."""

    def __init__(self, *, beside: str | Path, in_memory_bytes: int = _IN_MEMORY_BYTES) -> None:
        """beside: the output being written; the temporary file is placed in its folder, on a disk meant for data."""
        folder = Path(beside).absolute().parent
        folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=in_memory_bytes, dir=folder)  # noqa: SIM115
        self._rows: dict[str, int] = {}
        self._offsets = array("Q")
        self._digests = array("Q")
        self._compared: dict[str, int] = {}
        self._end = 0

    def __enter__(self) -> PassageStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, docid: str) -> bool:
        return docid in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, docid: str, *, title: str, text: str) -> None:
        """Store a passage. Raises RankLLMError if the docid has a different text, or if the disk is full."""
        if docid in self._rows:
            if self.doc(docid) != {"title": title, "text": text}:
                raise RepeatedDocidError(
                    f"docid {docid!r} occurs twice, with different contents; docids must be unique"
                )
            return
        line = json.dumps([title, text]).encode("ascii") + b"\n"
        self._rows[docid] = len(self._offsets)
        self._offsets.append(self._end)
        self._digests.append(_words_digest(title, text))
        try:
            self._file.seek(self._end)
            self._file.write(line)
        except OSError as error:
            raise RankLLMError(
                f"the temporary passage file cannot be written ({error.strerror}); free disk space in the output folder"
            ) from None
        self._end += len(line)

    def doc(self, docid: str) -> dict[str, str]:
        """Return a passage's title (empty if it has none) and text. Raises KeyError if it is not stored."""
        self._file.seek(self._offsets[self._rows[docid]])
        title, text = json.loads(self._file.readline())
        return {"title": title, "text": text}

    def compare(self, docid: str, *, title: str, text: str) -> None:
        """Store what `words_digests` needs of a passage that goes into no record."""
        self._compared[docid] = _words_digest(title, text)

    def words_digest(self, docid: str) -> int:
        """Return the digest of a passage's title and text (`exact_form`), since prompts show both; 0 if it has
        neither."""
        return self._digests[self._rows[docid]]

    def words_digests(self, docids: Iterable[str]) -> set[int]:
        """Return the digests of the passages that are stored or compared; those missing from the corpus have none."""
        kept, compared = self._rows, self._compared
        return {
            self._digests[kept[docid]] if docid in kept else compared[docid]
            for docid in docids
            if docid in kept or docid in compared
        }


def _words_digest(title: str, text: str) -> int:
    # Zero stands for an empty passage; a digest is zero once in 2**64 passages.
    words = f"{exact_form(title)}\n{exact_form(text)}"
    return digest(words) if words != "\n" else 0


def collect_passages(
    corpus: str | Path,
    store: PassageStore,
    *,
    needed: Collection[str],
    compared: Collection[str] = (),
    track: Track = untracked,
) -> None:
    """Put the passages with these docids into the store, reading the corpus once.

    compared: passages that go into no record and whose copies must not either; only their digests are stored.
    Raises RankLLMError (DataError with the line) for an unusable corpus, for a docid with two texts, and if the corpus
    contains none of the needed passages.
    """
    for docid, doc in track(read_corpus(corpus), "passages"):
        if docid in needed:
            title, text = title_and_text(doc)
            try:
                store.add(docid, title=title, text=text)
            except RepeatedDocidError:
                raise two_contents(corpus, docid) from None
        elif docid in compared:
            title, text = title_and_text(doc)
            store.compare(docid, title=title, text=text)
    if needed and not len(store):
        raise RankLLMError(
            f"{corpus}: contains none of the {len(needed):,} passages needed, such as {min(needed)!r}; "
            "use the corpus of this run and these judgements"
        )

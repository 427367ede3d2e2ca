"""The passages that training records are made of, in a temporary file, found by docid: memory holds ids only."""

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
"""A smaller collection never reaches the disk."""


class RepeatedDocidError(RankLLMError):
    """A docid names two passages."""


class PassageStore:
    """Titles and texts on disk. A context manager: the file is gone at the end of its block."""

    def __init__(self, *, beside: str | Path, in_memory_bytes: int = _IN_MEMORY_BYTES) -> None:
        """beside: the output that is being made; the temporary file lies in its folder, on a disk meant for data."""
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
        """Keep a passage. Raises RankLLMError where the docid has another text, or the disk is full."""
        if docid in self._rows:
            if self.doc(docid) != {"title": title, "text": text}:
                raise RepeatedDocidError(
                    f"docid {docid!r} occurs twice, with different contents; a docid names one passage"
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
            raise RankLLMError(f"the temporary file with the passages: {error.strerror}; make room for it") from None
        self._end += len(line)

    def doc(self, docid: str) -> dict[str, str]:
        """A passage's title (empty where it has none) and text. Raises KeyError for one that is not kept."""
        self._file.seek(self._offsets[self._rows[docid]])
        title, text = json.loads(self._file.readline())
        return {"title": title, "text": text}

    def compare(self, docid: str, *, title: str, text: str) -> None:
        """Keep what `words_digests` needs of a passage that goes into no record."""
        self._compared[docid] = _words_digest(title, text)

    def words_digest(self, docid: str) -> int:
        """The digest of a passage's title and text (`exact_form`), both of which are shown; 0 where it has neither."""
        return self._digests[self._rows[docid]]

    def words_digests(self, docids: Iterable[str]) -> set[int]:
        """The digests of those passages that are kept or compared; those that the corpus lacks have none."""
        kept, compared = self._rows, self._compared
        return {
            self._digests[kept[docid]] if docid in kept else compared[docid]
            for docid in docids
            if docid in kept or docid in compared
        }


def _words_digest(title: str, text: str) -> int:
    # Zero stands for a passage without a word; a digest is zero once in 2**64 passages.
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

    compared: passages that go into no record, but whose copies must not either; only their digests are kept.
    Raises RankLLMError (DataError with the line) for an unusable corpus, for a docid with two texts, and where the
    corpus holds none of the needed ones.
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
            f"{corpus}: holds none of the {len(needed):,} passages that are needed, such as {min(needed)!r}; "
            "use the corpus that belongs to the run and the judgements"
        )

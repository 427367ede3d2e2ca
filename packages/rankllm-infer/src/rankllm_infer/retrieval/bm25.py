"""BM25 over a collection: first-stage retrieval without a given run."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankllm_core.errors import ConfigError, RankLLMError

if TYPE_CHECKING:
    from bm25s import BM25
    from bm25s.tokenization import Tokenized

K1 = 0.9
"""Term frequency saturation: 0 ignores repetitions. 0.9 with b 0.4 are the defaults of Anserini and Pyserini."""
B = 0.4
"""Document length normalization: 0 is none, 1 is full."""


def title_and_text(title: str, text: str) -> str:
    """Return the text to index for a document: `title text`, or only the text if there is no title."""
    return f"{title} {text}".strip()


class RepeatedDocidError(RankLLMError):
    """Two documents have the same docid."""

    def __init__(self, docid: str) -> None:
        self.docid = docid
        super().__init__(f"BM25: docid {docid!r} occurs twice in the collection; docids must be unique")


_BATCH = 2_000
"""Number of documents tokenized at a time, which limits the texts in memory."""
_DOCIDS_FILE = "docids.json"
SAVED_FILES = frozenset(
    {_DOCIDS_FILE, "params.index.json", "vocab.index.json"}
    | {f"{part}.csc.index.npy" for part in ("data", "indices", "indptr")}
)
"""Files of a saved index, as named by bm25s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BM25Index:
    """Index of English text. Create one with `BM25Index.build`.

    Words of at least two letters are lowercased, filtered for English stop words and stemmed (Snowball). The score is
    the sum, over the words of the query, of

        ln(1 + (N - df + 0.5) / (df + 0.5)) * tf / (tf + k1 * (1 - b + b * length / mean length))

    where df of the N documents contain the word, this one tf times: Lucene's variant with exact lengths. Source:
    Kamphuis et al., "Which BM25 Do You Mean?", ECIR 2020, "Lucene (accurate)".
    """

    docids: tuple[str, ...]
    """In the order of the documents."""
    scorer: BM25
    stemmer: Any

    @classmethod
    def build(cls, documents: Iterable[tuple[str, str]], *, k1: float = K1, b: float = B) -> BM25Index:
        """Index (docid, text) pairs; the text is `title text`, see `title_and_text`. Texts are not stored.

        Raises RankLLMError if there are no documents, no document contains a word, or a docid occurs twice; ConfigError
        for a k1 below 0 or a b outside 0 to 1.
        """
        import bm25s

        if not k1 >= 0 or not 0 <= b <= 1:
            raise ConfigError(f"BM25: expected k1 of at least 0 and b from 0 to 1, found k1 {k1:g} and b {b:g}")
        stemmer = _stemmer()
        docids: list[str] = []
        tokenized = _tokenize(_noting(documents, docids), stemmer)
        if not docids:
            raise RankLLMError("BM25: the collection is empty; expected at least one document")
        if not tokenized.vocab:
            raise RankLLMError(
                f"BM25: none of the {len(docids)} documents contains a word to index (English stop words are ignored); "
                "use documents with text"
            )
        # Explicit backend: "auto" would select it, and thereby the rounding, by the installed packages.
        scorer = bm25s.BM25(k1=k1, b=b, method="lucene", backend="numpy")
        scorer.index(tokenized, show_progress=False)
        return cls(docids=tuple(docids), scorer=scorer, stemmer=stemmer)

    def save(self, folder: Path) -> None:
        """Write the index into a folder, which is created."""
        self.scorer.save(folder, show_progress=False)
        (folder / _DOCIDS_FILE).write_text(json.dumps(self.docids), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> BM25Index:
        """Read an index written by `save`. Scores are memory-mapped, so only what queries need is read."""
        import bm25s

        scorer = bm25s.BM25.load(folder, mmap=True, show_progress=False)
        docids = json.loads((folder / _DOCIDS_FILE).read_text(encoding="utf-8"))
        return cls(docids=tuple(docids), scorer=scorer, stemmer=_stemmer())

    def search(self, query: str, depth: int) -> list[tuple[str, float]]:
        """Return the best `depth` documents as (docid, score), best first; ties keep the order of the collection.

        Documents that share no term with the query are omitted, so the list may be shorter than `depth`; it is empty if
        the query only contains stop words and unknown words. Raises ConfigError if depth is below 1.
        """
        import bm25s
        import numpy as np

        if depth < 1:
            raise ConfigError(f"BM25: expected depth of at least 1, found {depth}")
        [terms] = bm25s.tokenize([query], stopwords="en", stemmer=self.stemmer, return_ids=False, show_progress=False)
        term_ids = self.scorer.get_tokens_ids(terms)
        if not term_ids:
            return []
        # Not scorer.retrieve: its partial sort does not define the order of ties.
        scores_N = self.scorer.get_scores_from_ids(term_ids)
        hits = np.flatnonzero(scores_N > 0)
        if len(hits) > depth:
            # Sorting documents that cannot be among the best would dominate the time in large collections.
            least = np.partition(scores_N[hits], len(hits) - depth)[len(hits) - depth]
            hits = hits[scores_N[hits] >= least]
        best = hits[np.argsort(-scores_N[hits], kind="stable")][:depth]
        return [(self.docids[row], float(scores_N[row])) for row in best]


def _stemmer() -> Any:
    import Stemmer

    return Stemmer.Stemmer("english")


def _noting(documents: Iterable[tuple[str, str]], docids: list[str]) -> Iterator[str]:
    """Yield the texts and collect the docids in a list. Raises RankLLMError for a repeated docid."""
    seen: set[str] = set()
    for docid, text in documents:
        if docid in seen:
            raise RepeatedDocidError(docid)
        seen.add(docid)
        docids.append(docid)
        yield text


def _tokenize(texts: Iterable[str], stemmer: Any) -> Tokenized:
    """Tokenize the texts in batches: only four-byte word ids stay in memory, not the texts."""
    import bm25s
    from bm25s.tokenization import Tokenized

    vocabulary: dict[str, int] = {}
    ids: list[array[int]] = []
    remaining = iter(texts)
    while batch := list(islice(remaining, _BATCH)):
        found = bm25s.tokenize(batch, stopwords="en", stemmer=stemmer, show_progress=False)
        own_ids = {number: vocabulary.setdefault(word, len(vocabulary)) for word, number in found.vocab.items()}
        ids.extend(array("i", [own_ids[number] for number in numbers]) for numbers in found.ids)
    return Tokenized(ids=ids, vocab=vocabulary)

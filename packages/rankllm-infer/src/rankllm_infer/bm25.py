"""BM25 over a collection held in memory: the first stage where no run file is given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rankllm_core.errors import ConfigError, RankLLMError

if TYPE_CHECKING:
    from bm25s import BM25

K1 = 0.9
"""How late repeating a term stops paying: 0 at once. 0.9 with b 0.4 are the defaults of Anserini and Pyserini."""
B = 0.4
"""How much a long document is marked down: 0 not at all, 1 in full proportion."""


def title_and_text(title: str, text: str) -> str:
    """What is indexed of a document: `title text`, or the text alone where there is no title."""
    return f"{title} {text}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class BM25Index:
    """An index of English text. Make one with `BM25Index.build`.

    Words of two letters or more are lower-cased, freed of English stop words and stemmed (Snowball). The score is the
    sum, over the words of the query, of

        ln(1 + (N - df + 0.5) / (df + 0.5)) * tf / (tf + k1 * (1 - b + b * length / mean length))

    where df of the N documents hold the word, this one tf times: Lucene's variant with exact lengths.
    Source: Kamphuis et al., "Which BM25 Do You Mean?", ECIR 2020, there "Lucene (accurate)".
    """

    docids: tuple[str, ...]
    """In the order in which the documents were given."""
    scorer: BM25
    stemmer: Any

    @classmethod
    def build(cls, documents: Iterable[tuple[str, str]]) -> BM25Index:
        """Index (docid, text) pairs; the text is `title text`, see `title_and_text`.

        Raises RankLLMError when there is no document, no document holds a word, or a docid occurs twice.
        """
        import bm25s
        import Stemmer

        docids: list[str] = []
        texts: list[str] = []
        for docid, text in documents:
            docids.append(docid)
            texts.append(text)
        _check(docids)
        stemmer = Stemmer.Stemmer("english")
        tokenized = bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)
        if not tokenized.vocab:
            raise RankLLMError(
                f"BM25: none of the {len(docids)} documents holds a word to index (English stop words do not count); "
                "give documents with text"
            )
        # numpy by name: "auto" would change the backend, and with it the rounding, with what else is installed.
        scorer = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numpy")
        scorer.index(tokenized, show_progress=False)
        return cls(docids=tuple(docids), scorer=scorer, stemmer=stemmer)

    def search(self, query: str, depth: int) -> list[tuple[str, float]]:
        """The best `depth` documents as (docid, score), best first; equal scores stay in the order of the collection.

        Documents that share no term with the query are left out, so the list may be shorter than `depth`; it is empty
        when the query holds nothing but stop words and unknown words. Raises ConfigError when depth is below 1.
        """
        import bm25s
        import numpy as np

        if depth < 1:
            raise ConfigError(f"BM25: depth must be at least 1, got {depth}")
        [terms] = bm25s.tokenize([query], stopwords="en", stemmer=self.stemmer, return_ids=False, show_progress=False)
        term_ids = self.scorer.get_tokens_ids(terms)
        if not term_ids:
            return []
        # Not scorer.retrieve: its partial sort leaves the order of equal scores open.
        scores_N = self.scorer.get_scores_from_ids(term_ids)
        hits = np.flatnonzero(scores_N > 0)
        best = hits[np.argsort(-scores_N[hits], kind="stable")][:depth]
        return [(self.docids[row], float(scores_N[row])) for row in best]


def _check(docids: list[str]) -> None:
    if not docids:
        raise RankLLMError("BM25: the collection is empty; give at least one document")
    seen: set[str] = set()
    for docid in docids:
        if docid in seen:
            raise RankLLMError(f"BM25: docid {docid!r} occurs twice in the collection; give each document its own")
        seen.add(docid)

"""Leak protection for training: questions used for evaluation, and passages relevant to them.

Passages are also compared by their text: most of these collections contain Wikipedia, and MS MARCO contains copies of
it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankllm_core.data.collections import read_corpus, read_queries
from rankllm_core.trec.qrels import read_qrels

GRAM_WORDS, SAME = 8, 0.6
"""Two texts count as the same passage if they share this fraction of the shorter one's n-grams of this many words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Split of a collection used for evaluation or for making choices."""

    folder: str
    queries: tuple[str, ...]
    qrels: str = ""
    corpus: str = "corpus.jsonl.gz"
    relevance_level: int = 1


HELD_OUT = (
    HeldOut(folder="trec_dl21", queries=("queries.tsv",), qrels="qrels.txt", relevance_level=2),
    HeldOut(folder="trec_dl20", queries=("queries.tsv",)),
    HeldOut(folder="nfcorpus", queries=("queries.tsv", "queries.dev.tsv"), qrels="qrels.txt"),
    HeldOut(folder="scifact", queries=("queries.tsv",), qrels="qrels.txt"),
    HeldOut(folder="wikiqa", queries=("queries.tsv", "queries.dev.tsv"), qrels="qrels.txt", corpus="corpus.jsonl"),
    HeldOut(folder="selqa", queries=("queries.tsv",), qrels="qrels.txt"),
    HeldOut(folder="cosqa", queries=("queries.tsv",), qrels="qrels.txt"),
    HeldOut(folder="nq_qed", queries=("queries.tsv",)),
)
"""Splits that must not leak: no question in any spelling, and no relevant passage if `qrels` are given."""


def held_out_queries(data: Path) -> set[str]:
    """Return the questions, normalized by `words`."""
    files = [data / held.folder / name for held in HELD_OUT for name in held.queries]
    return {words(text) for file in files for text in read_queries(file).values()}


def held_out_passages(data: Path) -> list[str]:
    """Return the texts relevant to an evaluation question."""
    found = []
    for held in HELD_OUT:
        if held.qrels:
            docids = relevant_docids([data / held.folder / held.qrels], held.relevance_level)
            corpus = read_corpus(data / held.folder / held.corpus)
            found += [str(doc["text"]) for docid, doc in corpus if docid in docids]
    return found


def copies(corpus: Iterable[tuple[str, Mapping[str, object]]], texts: Sequence[str]) -> set[str]:
    """Return docids of passages that equal, contain or are part of one of the texts."""
    sizes: list[int] = []
    holders: dict[str, list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        found = grams(text)
        sizes.append(len(found))
        for gram in found:
            holders[gram].append(number)
    copied = set()
    for docid, doc in corpus:
        found = grams(str(doc["text"]))
        shared = Counter(number for gram in found for number in holders.get(gram, ()))
        if any(n >= SAME * min(sizes[number], len(found)) for number, n in shared.items()):
            copied.add(docid)
    return copied


def grams(text: str) -> set[str]:
    """Return the n-grams of `GRAM_WORDS` words; for a shorter text, the whole text."""
    found = words(text).split()
    if not found:
        return set()
    return {" ".join(found[start : start + GRAM_WORDS]) for start in range(max(1, len(found) - GRAM_WORDS + 1))}


def relevant_docids(files: Iterable[Path], level: int = 1) -> set[str]:
    """Return docids with at least this grade for any query."""
    judged = [grades for file in files for grades in read_qrels(file).values()]
    return {docid for grades in judged for docid, grade in grades.items() if grade >= level}


def words(text: str) -> str:
    """Return a text without case and punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))

"""What training must not see: questions that are measured on, and passages that are relevant to one.

Passages are compared by their text, too: Wikipedia is in most of these collections, and MS MARCO has copies of it.
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
"""Two texts are one passage if so much of the shorter one's runs of so many words are in the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """A collection's split that is measured on, or that choices are made by."""

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
"""Of these, no question in any spelling, and no relevant passage where `qrels` are named."""


def held_out_queries(data: Path) -> set[str]:
    """The questions, as `words` has them."""
    files = [data / held.folder / name for held in HELD_OUT for name in held.queries]
    return {words(text) for file in files for text in read_queries(file).values()}


def held_out_passages(data: Path) -> list[str]:
    """The texts that are relevant to a question that is measured on."""
    found = []
    for held in HELD_OUT:
        if held.qrels:
            docids = relevant_docids([data / held.folder / held.qrels], held.relevance_level)
            corpus = read_corpus(data / held.folder / held.corpus)
            found += [str(doc["text"]) for docid, doc in corpus if docid in docids]
    return found


def copies(corpus: Iterable[tuple[str, Mapping[str, object]]], texts: Sequence[str]) -> set[str]:
    """The docids of passages that are one of the texts, hold it, or are a part of it."""
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
    """The runs of `GRAM_WORDS` words; of a shorter text, all of it."""
    found = words(text).split()
    if not found:
        return set()
    return {" ".join(found[start : start + GRAM_WORDS]) for start in range(max(1, len(found) - GRAM_WORDS + 1))}


def relevant_docids(files: Iterable[Path], level: int = 1) -> set[str]:
    """Whatever has at least this grade for any query."""
    judged = [grades for file in files for grades in read_qrels(file).values()]
    return {docid for grades in judged for docid, grade in grades.items() if grade >= level}


def words(text: str) -> str:
    """A text without case and punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))

"""What the shipped rerankers are trained on: collections whose licences allow it, and how much of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Form = Literal["whole", "pieces", "made"]
"""Passages as they are, pieces of them, pieces for made-up questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A collection's training split."""

    name: str
    """Its folder."""
    licence: str
    queries: str
    qrels: str
    run: str
    depth: int
    """Candidates of a query that the teacher orders."""
    share: float
    """Of the records that RECORDS wants."""
    n_asked: int = 0
    """Pieces that questions are made up from."""
    one_in: int = 1
    """Use one query in so many, by a hash of its qid."""
    held_out: tuple[str, ...] = ()
    """Qrels of the splits that the results page measures on: what they find relevant is in no record."""
    dev: tuple[str, ...] = ()
    """Qrels of the splits that choices are made by: what they find relevant is no record's answer."""

    def n_records(self, form: Form) -> dict[str, int]:
        """File -> records of this form in it, at most. Of made-up questions, all that there are."""
        wanted = RECORDS[form]
        return {kind: self.n_asked if n is None else round(n * self.share) for kind, n in wanted.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Files that records are made of: a first stage's candidates, and a teacher's order of them."""

    name: str
    queries: Path
    corpus: Path
    qrels: Path
    """Relevant passages alone."""
    run: Path
    teacher: Path
    depth: int
    """Candidates that windows are drawn from, all of them with a teacher's score."""


RECORDS: dict[Form, dict[str, int | None]] = {
    "whole": {"groups": 550, "windows-1": 1100, "windows-2": 550, "windows-3": 700},
    "pieces": {"groups": 1100, "windows-2": 1100, "windows-3": 1400},
    "made": {"groups": None, "windows-3": None},
}
"""A little more than train.sh reads. The first windows, of few words, are of passages with titles: those say at once
what a passage is about."""

SOURCES = (
    Source(
        name="nq_qed",
        licence="Wikipedia text, CC BY-SA 3.0",
        queries="queries.train.tsv",
        qrels="qrels.train.txt",
        run="runs/bm25.train.top50.run.gz",
        depth=50,
        share=0.7,
        n_asked=4000,
        dev=("qrels.txt",),
    ),
    Source(
        name="medquad",
        licence="CC BY 4.0",
        queries="queries.tsv.gz",
        qrels="qrels.txt.gz",
        run="runs/bm25.top50.run.gz",
        depth=20,
        share=0.12,
        n_asked=300,
        one_in=8,
    ),
    Source(
        name="selqa",
        licence="Apache-2.0",
        queries="queries.dev.tsv",
        qrels="qrels.dev.txt",
        run="runs/bm25.dev.run.gz",
        depth=20,
        share=0.09,
        n_asked=800,
        held_out=("qrels.txt",),
    ),
    Source(
        name="scifact",
        licence="claims CC BY 4.0, abstracts ODC-By 1.0",
        queries="queries.train.tsv",
        qrels="qrels.train.txt",
        run="runs/bm25.train.run.gz",
        depth=50,
        share=0.09,
        held_out=("qrels.txt",),
    ),
)

"""Training data of the bundled rerankers: collections whose licences permit it, and how much of each is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Form = Literal["whole", "pieces", "made"]
"""Passages as they are, pieces of them, and pieces for generated questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Training split of a collection."""

    name: str
    """Its folder."""
    licence: str
    queries: str
    qrels: str
    run: str
    depth: int
    """Number of candidates per query that the teacher orders."""
    share: float
    """Fraction of the records in RECORDS."""
    n_asked: int = 0
    """Number of pieces that questions are generated from."""
    one_in: int = 1
    """Use one query in this many, by a hash of its qid."""
    held_out: tuple[str, ...] = ()
    """Qrels of the evaluation splits: what they judge relevant occurs in no record."""
    dev: tuple[str, ...] = ()
    """Qrels of the splits used for choices: what they judge relevant is no record's answer."""

    def n_records(self, form: Form) -> dict[str, int]:
        """Map each file to its maximum number of records of this form. All generated questions are used."""
        wanted = RECORDS[form]
        return {kind: self.n_asked if n is None else round(n * self.share) for kind, n in wanted.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lists:
    """Input files for records: a first stage's candidates and a teacher's order of them."""

    name: str
    queries: Path
    corpus: Path
    qrels: Path
    """Relevant passages only."""
    run: Path
    teacher: Path
    depth: int
    """Number of candidates that windows are drawn from, all with a teacher score."""


RECORDS: dict[Form, dict[str, int | None]] = {
    "whole": {"groups": 550, "windows-1": 1100, "windows-2": 550, "windows-3": 700},
    "pieces": {"groups": 1100, "windows-2": 1100, "windows-3": 1400},
    "made": {"groups": None, "windows-3": None},
}
"""Slightly more than train.sh reads. The first windows, with few words, use passages with titles, which summarize a
passage immediately."""

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

"""Contents of the results page: test sets with their first stages, and the systems that rerank them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSet:
    """First-stage lists of one collection. Its queries were used neither for training nor for making choices."""

    __test__ = False

    name: str
    title: str
    folder: str
    run: str
    corpus: str
    depth: int
    """Number of candidates to rerank."""
    n_queries: int = 0
    """Number of queries, from the start of the run; 0: all."""
    first_stage: str = "BM25"
    relevance_level: int = 1
    """Lowest grade that counts as relevant for MRR and recall."""
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """System -> options of `rerank` specific to this set, in addition to the model's card."""

    def path(self, data: Path, file: str) -> Path:
        """Return the path of a file of the set."""
        return data / self.folder / file


TREC_DL_PRIOR = Path(__file__).with_name("trec_dl_prior.yaml")
"""Calibrated with `rankllm-infer calibrate` on TREC DL 2020 queries, with forty BM25 candidates each."""
TWO_PASSES = {"--num-passes": 2, "--pass-depth": 30}
OVER_BM25 = {"first": {"--identifier-prior": TREC_DL_PRIOR, **TWO_PASSES}, "generation": TWO_PASSES}
"""For a weak first stage: chosen on BM25 lists of TREC DL 2020 (dev_scores.py --set dl20-bm25 --depth 100)."""
OVER_SPLADE = {
    "pointwise": {"--fuse-weight": 0.5},
    "first": {"--fuse-weight": 0.4},
    "generation": {"--fuse-weight": 0.4},
}
"""For a strong first stage: chosen on its lists of TREC DL 2020 (dev_scores.py --set dl20-splade --depth 50)."""

SETS = (
    TestSet(
        name="dl21-bm25",
        title="TREC DL 2021, BM25",
        folder="trec_dl21",
        run="runs/BM25.run.gz",
        corpus="corpus.jsonl.gz",
        depth=100,
        relevance_level=2,
        settings=OVER_BM25,
    ),
    TestSet(
        name="dl21-splade",
        title="TREC DL 2021, SPLADE++",
        folder="trec_dl21",
        run="runs/SPLADE_P_P_ENSEMBLE_DISTIL.run.gz",
        corpus="corpus.jsonl.gz",
        depth=100,
        first_stage="SPLADE++",
        relevance_level=2,
        settings=OVER_SPLADE,
    ),
    TestSet(
        name="nfcorpus",
        title="NFCorpus",
        folder="nfcorpus",
        run="runs/bm25.run",
        corpus="corpus.jsonl.gz",
        depth=20,
        n_queries=100,
    ),
    TestSet(
        name="scifact",
        title="SciFact",
        folder="scifact",
        run="runs/bm25.run",
        corpus="corpus.jsonl.gz",
        depth=20,
        n_queries=100,
    ),
    TestSet(
        name="wikiqa",
        title="WikiQA",
        folder="wikiqa",
        run="runs/bm25.run.gz",
        corpus="corpus.jsonl",
        depth=20,
        n_queries=100,
    ),
    TestSet(
        name="selqa",
        title="SelQA",
        folder="selqa",
        run="runs/bm25.run.gz",
        corpus="corpus.jsonl.gz",
        depth=20,
        n_queries=100,
    ),
    TestSet(
        name="cosqa",
        title="CoSQA",
        folder="cosqa",
        run="runs/bm25.run.gz",
        corpus="corpus.jsonl.gz",
        depth=20,
        n_queries=100,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """Method of ordering the candidates."""

    name: str
    title: str
    options: tuple[str, ...] = ()
    """Options of `rankllm-infer rerank`; empty: the first stage itself, or MiniLM."""


SYSTEMS = (
    System(name="first-stage", title="first stage"),
    System(name="minilm", title="all-MiniLM-L6-v2"),
    System(
        name="untrained",
        title="SmolLM2, untrained",
        options=("--method", "pointwise", "--prompt-template-path", "yes_no_query_last"),
    ),
    System(name="pointwise", title="smollm2-pointwise", options=("--model-path", "smollm2-pointwise")),
    System(name="first", title="smollm2-first, logits", options=("--model-path", "smollm2-first")),
    System(
        name="generation",
        title="smollm2-first, generation",
        options=("--model-path", "smollm2-first", "--no-use-logits"),
    ),
)

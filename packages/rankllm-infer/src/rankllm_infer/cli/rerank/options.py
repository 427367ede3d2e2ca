"""What `rerank` is told: the inputs, the outputs and the model of a run, and the options of its reranker."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

import click

from rankllm_infer.cli.options import ReadsRuns, ignored
from rankllm_infer.option_table import LOCAL, option
from rankllm_infer.options import RerankOptions

OUTPUT_FORMATS = ("trec", "tsv", "msmarco")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArguments:
    """The model to load or to ask."""

    model_path: str = option(
        MISSING, "--model-path", "--model-name-or-path", group="Model", effect="content", metavar="FOLDER|NAME"
    )
    """Model folder, Hugging Face model name, bundled reranker (smollm2-pointwise, smollm2-first), or, with --engine
    openai, the server's name for the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DtypeSwitches:
    """The originals' spellings of --dtype."""

    bf16: bool | None = option(None, "--bf16", group="Engine", effect="loaded", engines=LOCAL)
    """Same as --dtype bfloat16."""
    fp16: bool | None = option(None, "--fp16", group="Engine", effect="loaded", engines=LOCAL)
    """Same as --dtype float16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankInput(ReadsRuns):
    """What to rerank: one of five inputs, and what goes with it."""

    requests: Path | None = option(None, "--requests", "--requests-file", group="Input", effect="content")
    """Requests to rerank, JSONL: one query per line with its candidates. Results of an earlier run (--output-jsonl) are
    accepted, too."""
    rerank_input: Path | None = option(None, "--rerank-input", "--encode-in-path", group="Input", effect="content")
    """Query-passage pairs, JSONL, as `rankllm-infer prepare` and Tevatron write them."""
    run: Path | None = option(None, "--run", group="Input", effect="content")
    """First-stage run (TREC, TSV or MS MARCO). Needs --queries and --corpus."""
    queries: str | None = option(None, "--queries", group="Input", effect="content", metavar="FILE|NAME")
    """Queries of --run: TSV or JSONL, optionally gzipped, or a Hugging Face data set."""
    corpus: str | None = option(None, "--corpus", group="Input", effect="content", metavar="FILE|NAME")
    """Passages of --run: JSONL or TSV, optionally gzipped, or a Hugging Face data set."""
    dataset: str | None = option(None, "--dataset", group="Input", effect="content", metavar="NAME")
    """Test collection by name (dl19, beir-nfcorpus, ...). Needs --retrieval-method."""
    retrieval_method: str | None = option(None, "--retrieval-method", group="Input", effect="content", metavar="NAME")
    """First stage of --dataset: bm25, bm25_rm3, SPLADE++_EnsembleDistil_ONNX or splade_v3."""
    retrieval_results_dir: Path | None = option(
        None,
        "--retrieval-results-dir",
        group="Input",
        effect="content",
        metavar="FOLDER",
        default_text="retrieve_results",
    )
    """Folder with stored first-stage results of --dataset."""
    query: str | None = option(None, "--query", group="Input", effect="content")
    """A single query. Needs --passages; prints the ranking."""
    passages: str | None = option(None, "--passages", group="Input", effect="content", metavar="FILE|-")
    """Passages of --query: one per line or JSONL; - reads standard input."""
    max_queries: int | None = option(None, "--max-queries", group="Input", effect="content", least=1)
    """Maximum number of queries to rerank, from the start of the input."""
    strict: bool = option(False, "--strict", group="Input", effect="none")
    """Treat missing texts and queries without candidates as errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankOutput:
    """What to write, and what becomes of an interrupted or a finished run."""

    output: Path | None = option(None, "--output", "--output-trec-file", group="Output", effect="none")
    """Reranked run. Scores decrease strictly, so that trec_eval keeps the order."""
    encoded_save_path: Path | None = option(None, "--encoded-save-path", group="Output", effect="none")
    """Same as --output, in TSV by default."""
    output_format: str | None = option(
        None,
        "--output-format",
        group="Output",
        effect="none",
        choices=OUTPUT_FORMATS,
        default_text="tsv for a name that ends in .tsv, else trec",
    )
    """Format of --output."""
    tag: str | None = option(None, "--tag", group="Output", effect="none", default_text="rankllm")
    """Name of the run in the TREC format."""
    output_jsonl: Path | None = option(None, "--output-jsonl", "--output-jsonl-file", group="Output", effect="none")
    """Results with texts, scores and statuses, JSONL. Can be read back with --requests."""
    trace: Path | None = option(None, "--trace", "--invocations-history-file", group="Output", effect="option")
    """Every prompt and answer, JSONL."""
    qrels: Path | None = option(None, "--qrels", "--qrels-file", group="Output", effect="none")
    """Relevance judgements. Prints nDCG@10, MRR@10 and Recall@100 of this run's queries when it is done."""
    resume: bool = option(False, "--resume", group="Output", effect="none")
    """Also retry failed queries. Repeating the same command already resumes an interrupted run."""
    overwrite: bool = option(False, "--overwrite", group="Output", effect="none")
    """Start over and replace existing outputs."""
    dry_run: bool = option(False, "--dry-run", group="Output", effect="none")
    """Rerank nothing: print the model calls, rounds and tokens that the run takes, by the model's tokenizer."""
    all_strategies: bool = option(False, "--all-strategies", group="Output", effect="none")
    """With --dry-run: also count what the model's other strategies would take."""
    price_in: float | None = option(
        None, "--price-in", group="Output", effect="none", least=0, unit="a million tokens", metavar="PRICE"
    )
    """With --dry-run: price of a million prompt tokens."""
    price_out: float | None = option(
        None, "--price-out", group="Output", effect="none", least=0, unit="a million tokens", metavar="PRICE"
    )
    """With --dry-run: price of a million generated tokens."""
    max_total_tokens: int | None = option(None, "--max-total-tokens", group="Output", effect="none", least=1)
    """Stop when the run has used so many tokens, prompts and answers together; the same command with a larger number
    resumes it. Prompts in flight may add to them."""
    as_json: bool = option(False, "--json", group="Output", effect="none")
    """Print JSON instead of a table. Only with --query."""


OWNERS = (RerankInput, ModelArguments, RerankOptions, DtypeSwitches, RerankOutput)
"""Whose rows are the options of `rerank`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankCommand:
    """One command line of `rerank`, checked."""

    kind: str
    """Which of the five inputs is given: the name of a field of `RerankInput`."""
    model: str
    inputs: RerankInput
    outputs: RerankOutput
    options: RerankOptions
    prior_file: str | None
    """The file that --identifier-prior was read from."""


def ignored_options(command: click.decorators.FC) -> click.decorators.FC:
    """The originals' options that have no effect here."""
    with_value = ("--dataset-name", "--dataset-proc-num", "--tokenizer-name", "--cache-dir", "--output-dir")
    switches = ("--overwrite-cache", "--print-prompts-responses", "--populate-invocations-history")
    for name in with_value:
        command = ignored(name, takes_value=True)(command)
    for name in switches:
        command = ignored(name, takes_value=False)(command)
    return command

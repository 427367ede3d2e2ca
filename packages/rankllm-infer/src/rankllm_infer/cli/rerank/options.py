"""Input, output and model options for `rerank`, in addition to the reranker options."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from rankllm_infer.cli.options import ReadsRuns
from rankllm_infer.option_table import LOCAL, option
from rankllm_infer.options import RerankOptions

OUTPUT_FORMATS = ("trec", "tsv", "msmarco")
DATASET_DEPTH = 100
"""Default number of candidates per query with --dataset, as in rank_llm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelArguments:
    """Model to load or to call."""

    model_path: str = option(
        MISSING, "--model-path", "--model-name-or-path", group="Model", effect="content", metavar="FOLDER|NAME"
    )
    """Model folder, Hugging Face model name, bundled reranker (smollm2-pointwise, smollm2-first) or, with --engine
    openai, the model name on the server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DtypeSwitches:
    """rank_llm's and Tevatron's spellings of --dtype."""

    bf16: bool | None = option(None, "--bf16", group="Engine", effect="loaded", engines=LOCAL)
    """Same as --dtype bfloat16."""
    fp16: bool | None = option(None, "--fp16", group="Engine", effect="loaded", engines=LOCAL)
    """Same as --dtype float16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankInput(ReadsRuns):
    """Input for `rerank`: one of five kinds, with the options that it requires."""

    requests: Path | None = option(None, "--requests", "--requests-file", group="Input", effect="content")
    """Requests to rerank (JSONL, one query per line with its candidates), or the results of an earlier run
    (--output-jsonl)."""
    rerank_input: Path | None = option(None, "--rerank-input", "--encode-in-path", group="Input", effect="content")
    """Query-passage pairs (JSONL), as written by `rankllm-infer prepare` or Tevatron."""
    run: Path | None = option(None, "--run", group="Input", effect="content")
    """First-stage run (TREC, TSV or MS MARCO). Requires --queries and --corpus."""
    queries: str | None = option(None, "--queries", group="Input", effect="content", metavar="FILE|NAME")
    """Queries for --run: TSV or JSONL, optionally gzipped, or a Hugging Face dataset."""
    corpus: str | None = option(None, "--corpus", group="Input", effect="content", metavar="FILE|NAME")
    """Passages for --run: JSONL or TSV, optionally gzipped, or a Hugging Face dataset."""
    dataset: str | None = option(None, "--dataset", group="Input", effect="content", metavar="NAME")
    """Test collection name (dl19, beir-nfcorpus, ...). Requires --retrieval-method."""
    retrieval_method: str | None = option(None, "--retrieval-method", group="Input", effect="content", metavar="NAME")
    """First-stage retriever for --dataset: bm25, bm25_rm3, SPLADE++_EnsembleDistil_ONNX or splade_v3."""
    retrieval_results_dir: Path | None = option(
        None,
        "--retrieval-results-dir",
        group="Input",
        effect="content",
        metavar="FOLDER",
        default_text="retrieve_results",
    )
    """Folder with stored first-stage results for --dataset."""
    query: str | None = option(None, "--query", group="Input", effect="content")
    """Single query to rank --passages for. Prints the ranking."""
    passages: str | None = option(None, "--passages", group="Input", effect="content", metavar="FILE|-")
    """Passages for --query: one per line, or JSONL. Use - for standard input."""
    max_queries: int | None = option(None, "--max-queries", group="Input", effect="content", least=1)
    """Maximum number of queries to rerank, from the start of the input."""
    strict: bool = option(False, "--strict", group="Input", effect="none")
    """Treat missing texts and queries without candidates as errors instead of warnings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankOutput:
    """Outputs, resuming and cost estimates for `rerank`."""

    output: Path | None = option(None, "--output", "--output-trec-file", group="Output", effect="none")
    """File for the reranked run. Scores are strictly decreasing, so that trec_eval preserves the order."""
    encoded_save_path: Path | None = option(None, "--encoded-save-path", group="Output", effect="none")
    """Same as --output, with TSV as the default format."""
    output_format: str | None = option(
        None,
        "--output-format",
        group="Output",
        effect="none",
        choices=OUTPUT_FORMATS,
        default_text="tsv if the file name ends in .tsv, else trec",
    )
    """Format of the run written to --output."""
    tag: str | None = option(None, "--tag", group="Output", effect="none", default_text="rankllm")
    """Run name in the last column of a TREC run."""
    output_jsonl: Path | None = option(None, "--output-jsonl", "--output-jsonl-file", group="Output", effect="none")
    """JSONL file for the results with texts, scores and statuses. It can be reranked again with --requests."""
    trace: Path | None = option(None, "--trace", "--invocations-history-file", group="Output", effect="option")
    """JSONL file for all prompts and the model's answers."""
    qrels: Path | None = option(None, "--qrels", "--qrels-file", group="Output", effect="none")
    """Relevance judgements (qrels). Prints nDCG@10, MRR@10 and Recall@100 for this run's queries at the end."""
    resume: bool = option(False, "--resume", group="Output", effect="none")
    """Also retry failed queries. Repeating the same command already resumes an interrupted run."""
    overwrite: bool = option(False, "--overwrite", group="Output", effect="none")
    """Start over and replace existing outputs."""
    dry_run: bool = option(False, "--dry-run", group="Output", effect="none")
    """Estimate the cost without reranking: print how many model calls, rounds and tokens the run needs, counted with
    the model's tokenizer."""
    all_strategies: bool = option(False, "--all-strategies", group="Output", effect="none")
    """With --dry-run: also estimate the other strategies that the model supports."""
    price_in: float | None = option(
        None, "--price-in", group="Output", effect="none", least=0, unit="a million tokens", metavar="PRICE"
    )
    """With --dry-run: price per million prompt tokens."""
    price_out: float | None = option(
        None, "--price-out", group="Output", effect="none", least=0, unit="a million tokens", metavar="PRICE"
    )
    """With --dry-run: price per million generated tokens."""
    max_total_tokens: int | None = option(None, "--max-total-tokens", group="Output", effect="none", least=1)
    """Token budget for the run, including prompt and generated tokens. The run stops when the budget is used up;
    requests in flight may exceed it slightly. To resume, repeat the command with a larger budget."""
    as_json: bool = option(False, "--json", group="Output", effect="none")
    """Print the ranking of --query as JSON instead of a table."""


OWNERS = (RerankInput, ModelArguments, RerankOptions, DtypeSwitches, RerankOutput)
"""Dataclasses whose rows are the `rerank` options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankCommand:
    """Parsed and checked command line of `rerank`."""

    kind: str
    """Which of the five inputs is given: a field name of `RerankInput`."""
    model: str
    inputs: RerankInput
    outputs: RerankOutput
    options: RerankOptions
    prior_file: str | None
    """File that --identifier-prior was read from."""

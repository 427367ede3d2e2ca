"""`rankllm-infer retrieve`: first-stage retrieval, from queries to a run or to requests for `rerank`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from rankllm_core.command_line import NAME, PATH
from rankllm_core.files import check_output, refuse_same_file
from rankllm_infer.cli import say
from rankllm_infer.console import SCREEN
from rankllm_infer.retrieval.bm25 import K1, B

if TYPE_CHECKING:
    from rankllm_core.trec import Qrels, Run, RunOutput
    from rankllm_infer.retrieval.retrieval_data import Method
    from rankllm_infer.retrieval.sources import Source

_DEPTH = 100
_MEASURES = ("nDCG@10", "MRR@10", "Recall@100")
_NEEDED = {"corpus": {"queries"}, "index": {"queries"}, "dataset": {"retrieval_method"}}
_ALLOWED = {
    "corpus": {"queries", "index_dir", "k1", "b"},
    "index": {"queries", "retrieval_method", "k1", "b"},
    "dataset": {"retrieval_method", "k1", "b"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveCommand:
    """Parsed command line of `retrieve`. Raises UsageError for options that cannot be combined."""

    corpus: Path | None
    index: str | None
    dataset: str | None
    queries: str | None
    retrieval_method: str | None
    output: Path | None
    output_requests: Path | None
    depth: int
    k1: float | None
    b: float | None
    index_dir: Path | None
    max_queries: int | None
    remove_query: bool
    output_format: Literal["trec", "tsv", "msmarco"] | None
    tag: str | None
    qrels: Path | None
    overwrite: bool

    def __post_init__(self) -> None:
        self._check_source()
        self._check_outputs()

    @property
    def kind(self) -> str:
        """What is searched: `corpus`, `index` or `dataset`."""
        return next(name for name in _ALLOWED if getattr(self, name) is not None)

    @property
    def run_format(self) -> RunOutput:
        """Format of the run."""
        from rankllm_infer.jobs.outputs import run_format_of

        return "trec" if self.output is None else run_format_of(self.output, self.output_format)

    @property
    def outputs(self) -> list[Path]:
        """Output files."""
        return [path for path in (self.output, self.output_requests) if path is not None]

    def source(self) -> Source:
        """Return what is searched. Raises ConfigError for an unknown method, UsageError for one that cannot search
        it."""
        from rankllm_infer.retrieval.sources import CorpusSource, DatasetSource, IndexSource

        k1, b = K1 if self.k1 is None else self.k1, B if self.b is None else self.b
        if self.corpus is not None and self.queries is not None:
            return CorpusSource(corpus=self.corpus, queries=self.queries, index_dir=self.index_dir, k1=k1, b=b)
        if self.index is not None and self.queries is not None:
            return IndexSource(name=self.index, queries=self.queries, method=self._method(), k1=k1, b=b)
        return DatasetSource(name=self.dataset or "", method=self._method(), k1=k1, b=b)

    def _check_source(self) -> None:
        kinds = [name for name in _ALLOWED if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise click.UsageError("give one of --corpus, --index and --dataset")
        (kind,) = kinds
        for name in ("queries", "retrieval_method", "index_dir", "k1", "b"):
            option = "--" + name.replace("_", "-")
            is_given = getattr(self, name) is not None
            if not is_given and name in _NEEDED[kind]:
                raise click.UsageError(f"--{kind} needs {option}")
            if is_given and name not in _ALLOWED[kind]:
                raise click.UsageError(f"--{kind} cannot be combined with {option}")

    def _check_outputs(self) -> None:
        outputs = self.outputs
        if not outputs and not self.qrels and self.dataset is None:
            raise click.UsageError("nothing to write: give --output, --output-requests or --qrels")
        if self.output is None and self.output_format:
            raise click.UsageError("--output-format has no effect without --output")
        if self.tag and (self.output is None or self.run_format != "trec"):
            raise click.UsageError("--tag has no effect without an --output in the TREC format")
        if len({path.resolve() for path in outputs}) < len(outputs):
            raise click.UsageError(f"{outputs[0]}: given for two outputs; give each its own file")

    def _method(self) -> Method:
        from rankllm_infer.retrieval.retrieval_data import find_method

        method = find_method(self.retrieval_method or "bm25")
        if self.index is not None and method.kind == "stored":
            raise click.UsageError(
                f"--index cannot be searched with {method.name}, which is available only as stored results"
            )
        if method.kind != "bm25":
            for name in ("k1", "b"):
                if getattr(self, name) is not None:
                    raise click.UsageError(f"--{name} is a BM25 parameter and has no effect on {method.name}")
        return method


@click.command("retrieve")
@click.option("--corpus", type=PATH, help="Passages to search with the built-in BM25: JSONL or TSV (.gz, .xz).")
@click.option(
    "--index", type=NAME, help="Lucene index to search with Pyserini: a folder, or the name of a prebuilt index."
)
@click.option("--dataset", type=NAME, help="Pyserini test collection: dl19 to dl23, beir-NAME, mrtydi-LANGUAGE.")
@click.option(
    "--queries",
    "--topics",
    type=NAME,
    help="Queries: TSV or JSONL (.gz, .xz); with --index, also the name of a Pyserini topic set.",
)
@click.option(
    "--retrieval-method",
    help="Retriever for --index and --dataset: bm25, bm25_rm3, SPLADE++_EnsembleDistil_ONNX or splade_v3.",
)
@click.option("--output", type=PATH, help="File for the run.")
@click.option(
    "--output-requests",
    type=PATH,
    help="File for the candidates with their texts, for use with `rerank --requests`.",
)
@click.option("--depth", type=click.IntRange(1), default=_DEPTH, help="Maximum number of candidates per query.")
@click.option("--k1", type=click.FloatRange(min=0), help=f"BM25 term frequency saturation.  [default: {K1}]")
@click.option("--b", type=click.FloatRange(0, 1), help=f"BM25 document length normalization.  [default: {B}]")
@click.option(
    "--index-dir", type=PATH, help="Folder for the BM25 index of --corpus.  [default: a folder in the user's cache]"
)
@click.option("--max-queries", type=click.IntRange(1), help="Maximum number of queries, from the start of --queries.")
@click.option("--remove-query/--no-remove-query", default=False, help="Drop candidates whose docid equals the qid.")
@click.option(
    "--output-format",
    type=click.Choice(["trec", "tsv", "msmarco"]),
    help="Run format.  [default: tsv if the file name ends in .tsv, else trec]",
)
@click.option("--tag", help="Run name in the last column of a TREC run.  [default: the name of the retrieval method]")
@click.option(
    "--qrels", type=PATH, help="Relevance judgements (qrels) to evaluate the run with. --dataset includes its own."
)
@click.option("--overwrite/--no-overwrite", default=False, help="Replace existing outputs.")
def command(**given: Any) -> None:
    """Retrieve candidates for queries: the first stage.

    --corpus with --queries needs no further packages: its BM25 index is built on first use and rebuilt when the corpus
    changes. --dataset with --retrieval-method and --index with --queries require Pyserini.

    Pass the --output file to `rerank --run` and `evaluate`, and the --output-requests file to `rerank --requests`.
    """
    from rankllm_core.trec import read_qrels
    from rankllm_infer.evaluation.judgements import check_judged
    from rankllm_infer.retrieval.sources import RetrievedFiles, SearchSettings, search, write_retrieved

    asked = RetrieveCommand(**given)
    _check_files(asked)
    qrels = None if asked.qrels is None else read_qrels(asked.qrels)

    def check(queries: Mapping[str, str]) -> None:
        if qrels is not None and asked.qrels is not None:
            check_judged(qrels, queries, source=asked.qrels)

    found = search(
        asked.source(),
        SearchSettings(depth=asked.depth, max_queries=asked.max_queries, remove_query=asked.remove_query),
        check=check,
        watcher=SCREEN,
    )
    for line in found.lines():
        say(line)
    files = RetrievedFiles(run=asked.output, run_format=asked.run_format, tag=asked.tag, requests=asked.output_requests)
    write_retrieved(found, files, watcher=SCREEN)
    if (judged := qrels or found.qrels) is not None:
        _print_figures(found.run, judged)


def _check_files(asked: RetrieveCommand) -> None:
    for path in asked.outputs:
        check_output(path, overwrite=asked.overwrite)
        for source in (asked.corpus, asked.queries, asked.qrels):
            if source:
                refuse_same_file(source, path)


def _print_figures(run: Run, qrels: Qrels) -> None:
    """Print the measures over the judged queries of the run; a query without results scores 0."""
    from rankllm_infer.evaluation.evaluate import evaluate_asked, evaluation_lines

    found = evaluate_asked(qrels, run, _MEASURES)
    if found is None:
        say("No scores: no judged query retrieved any candidate")
        return
    say(f"Scores of the {found.n_queries} judged queries among the {len(run)} in this run:")
    for line in evaluation_lines("retrieved", found):
        click.echo(line)

"""Build a report from files: read its parts, check that they belong together, and write the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.trec import RunFormat
from rankllm_infer.evaluation.judgements import read_judgements
from rankllm_infer.report.content import Outline, Sources, outline
from rankllm_infer.report.page import write_page
from rankllm_infer.report.passages import Texts, texts_of_collection, texts_of_requests
from rankllm_infer.report.ranked_files import read_ranked
from rankllm_infer.report.traces import Call, read_traces
from rankllm_infer.watching import count, examples

_PASSAGE_CHARACTERS = 2_000


class NoTextsError(ConfigError):
    """The explained run contains no texts, and none were given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFiles:
    """Input files of a report. Raises ConfigError for files that cannot be combined."""

    run: Path
    """The explained run or, preferably, the JSON Lines of `rerank --output-jsonl`."""
    qrels: Path
    baseline: Path | None = None
    """Run to compare with; by default the order of `requests`."""
    also: tuple[Path, ...] = ()
    """Additional runs for the table of measures."""
    requests: Path | None = None
    """Requests that were reranked, for the texts; by default `run`, if it contains texts."""
    queries: Path | None = None
    """Query texts; with `corpus`, an alternative to `requests`."""
    corpus: Path | None = None
    trace: Path | None = None
    """Model calls of `run`, as written by `rerank --trace`."""
    run_format: RunFormat = "auto"
    """How to read runs with three columns."""

    def __post_init__(self) -> None:
        if (self.queries is None) != (self.corpus is None):
            raise ConfigError("--queries and --corpus go together")
        if self.requests is not None and self.queries is not None:
            raise ConfigError("give the texts with either --requests, or --queries and --corpus")
        paths = self._ranked()
        if twice := [path for path in paths if paths.count(path) > 1]:
            raise ConfigError(f"{twice[0]} is given twice")

    def read(self) -> tuple[Path, ...]:
        """Return all input files."""
        found = (self.run, self.baseline, self.requests, self.queries, self.corpus, self.trace, self.qrels, *self.also)
        return tuple(path for path in found if path is not None)

    def named(self) -> dict[str, Path]:
        """Return name -> file: baseline, run, others; names are file names if these are distinct, else paths."""
        paths = self._ranked()
        is_clear = len({path.name for path in paths}) == len(paths)
        names = [path.name if is_clear else str(path) for path in paths]
        if self.baseline is None:
            names[0] = f"first stage ({names[0]})"
        return dict(zip(names, paths, strict=True))

    def _ranked(self) -> list[Path]:
        baseline = self.baseline or self.requests
        if baseline is None:
            raise ConfigError("give --baseline, or --requests to use their order as the baseline")
        return [baseline, self.run, *self.also]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """How much the page shows, and which queries its measures cover."""

    depth: int = 20
    """Number of passages per query."""
    max_queries: int | None = None
    """Maximum number of queries, largest change first; by default all."""
    prompt_characters: int = 1_000
    """Maximum number of characters per prompt of the trace."""
    run_queries_only: bool = False
    relevance_level: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Contents of a report. `write` writes the page."""

    sources: Sources
    plan: Outline
    texts: Texts
    notes: Sequence[str]
    """Notes for the reader, such as queries without texts."""

    @property
    def n_queries(self) -> int:
        """Number of queries shown."""
        return len(self.plan.docids)

    def write(self, path: Path, *, title: str | None = None) -> None:
        """Write the page. title: by default the names of both runs."""
        title = title or f"{self.sources.explained} against {self.sources.baseline}"
        write_page(path, self.sources, self.plan, self.texts, title=title, notes=self.notes)


def build_report(files: ReportFiles, measures: Sequence[str], settings: ReportSettings | None = None) -> Report:
    """Build a report: read the files, compare the run with the baseline, and choose what to show.

    measures: see `parse_measures`; queries are ordered by the first. Raises RankLLMError (DataError with the line) for
    files that cannot be read or do not belong together, NoTextsError without texts.
    """
    settings = settings or ReportSettings()
    sources = _read_sources(files, settings)
    plan = outline(
        sources,
        measures,
        depth=settings.depth,
        max_queries=settings.max_queries,
        run_queries_only=settings.run_queries_only,
        relevance_level=settings.relevance_level,
    )
    texts = _read_texts(files, sources, plan)
    notes = [*plan.comparison.missing_lines(), *_notes(sources, plan, texts)]
    return Report(sources=sources, plan=plan, texts=texts, notes=notes)


def _read_sources(files: ReportFiles, settings: ReportSettings) -> Sources:
    named = files.named()
    qrels = read_judgements(files.qrels, list(named.values()))
    ranked = {name: read_ranked(path, run_format=files.run_format) for name, path in named.items()}
    if files.trace is None:
        return Sources(qrels=qrels, files=ranked)
    traces = read_traces(files.trace, prompt_characters=settings.prompt_characters)
    sources = Sources(qrels=qrels, files=ranked, traces=traces)
    _check_traces(sources, traces, files.trace)
    return sources


def _check_traces(sources: Sources, traces: Mapping[str, tuple[Call, ...]], path: Path) -> None:
    """Raise RankLLMError if the trace belongs to another run."""
    run = sources.files[sources.explained].run
    if not any(qid in run for qid in traces):
        raise RankLLMError(
            f"{path}: contains none of the run's queries (the run has {examples(run)}; this file has "
            f"{examples(traces) or 'none'}); use the trace of the same run"
        )
    for qid, calls in traces.items():
        ranked = {docid for docid, _ in run.get(qid, ())}
        foreign = [docid for call in calls for docid in call.docids if ranked and docid not in ranked]
        if foreign:
            raise RankLLMError(
                f"{path}: query {qid!r}: the model was shown docid {foreign[0]!r}, which {sources.explained} does not "
                "rank; use the trace of the same run"
            )


def _read_texts(files: ReportFiles, sources: Sources, plan: Outline) -> Texts:
    explained = sources.files[sources.explained]
    if files.queries is not None and files.corpus is not None:
        texts = texts_of_collection(files.queries, files.corpus, plan.docids, characters=_PASSAGE_CHARACTERS)
    elif files.requests is not None or explained.has_texts:
        source = files.requests or explained.path
        texts = texts_of_requests(source, plan.docids, characters=_PASSAGE_CHARACTERS)
    else:
        raise NoTextsError(
            f"{explained.path} is a run, which contains no texts; give --requests, or --queries and --corpus"
        )
    texts.check(plan.docids)
    return texts


def _notes(sources: Sources, plan: Outline, texts: Texts) -> list[str]:
    """Return notes for readers and authors of the page."""
    notes = []
    n_queries = plan.comparison.n_queries
    if len(plan.docids) < n_queries:
        notes.append(f"Showing the {len(plan.docids)} of {n_queries} queries with the largest changes.")
    if qids := texts.missing_qids(plan.docids):
        notes.append(f"{texts.source}: no text for {count(len(qids), 'query')} ({examples(qids)})")
    if docids := texts.missing_docids(plan.docids):
        notes.append(f"{texts.source}: no text for {count(len(docids), 'passage')} ({examples(docids)})")
    if sources.traces and (untraced := [qid for qid in plan.docids if qid not in sources.traces]):
        notes.append(f"The trace lacks {count(len(untraced), 'query')} ({examples(untraced)})")
    return notes

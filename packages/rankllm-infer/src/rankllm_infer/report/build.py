"""A report from files: read what a page is made of, check that it belongs together, write the page."""

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
    """The run that is explained holds no texts, and none were given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFiles:
    """The files that a page is made of. Raises ConfigError for files that do not go together."""

    run: Path
    """What is explained: a run or, better, the JSON Lines of `rerank --output-jsonl`."""
    qrels: Path
    baseline: Path | None = None
    """What the run is compared with; by default the order of `requests`."""
    also: tuple[Path, ...] = ()
    """Further runs, in the figures alone."""
    requests: Path | None = None
    """Texts: what was reranked; by default `run`, where it holds texts."""
    queries: Path | None = None
    """Texts of the queries, with `corpus` in place of `requests`."""
    corpus: Path | None = None
    trace: Path | None = None
    """Model calls of `run`, as `rerank --trace` writes them."""
    run_format: RunFormat = "auto"
    """How to read runs of three columns."""

    def __post_init__(self) -> None:
        if (self.queries is None) != (self.corpus is None):
            raise ConfigError("--queries and --corpus go together")
        if self.requests is not None and self.queries is not None:
            raise ConfigError("give the texts by --requests, or by --queries and --corpus")
        paths = self._ranked()
        if twice := [path for path in paths if paths.count(path) > 1]:
            raise ConfigError(f"{twice[0]} is given twice")

    def read(self) -> tuple[Path, ...]:
        """Every file that is read."""
        found = (self.run, self.baseline, self.requests, self.queries, self.corpus, self.trace, self.qrels, *self.also)
        return tuple(path for path in found if path is not None)

    def named(self) -> dict[str, Path]:
        """Name -> file: baseline, run, others; a name is the file's own where that is enough to tell them apart."""
        paths = self._ranked()
        is_clear = len({path.name for path in paths}) == len(paths)
        names = [path.name if is_clear else str(path) for path in paths]
        if self.baseline is None:
            names[0] = f"first stage ({names[0]})"
        return dict(zip(names, paths, strict=True))

    def _ranked(self) -> list[Path]:
        baseline = self.baseline or self.requests
        if baseline is None:
            raise ConfigError("give a --baseline, or --requests, whose order then is the baseline")
        return [baseline, self.run, *self.also]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """How much a page shows, and over which queries its figures are."""

    depth: int = 20
    """Passages of each query."""
    max_queries: int | None = None
    """Only the queries that changed most; by default all."""
    prompt_characters: int = 1_000
    """Kept of each prompt of the trace."""
    run_queries_only: bool = False
    relevance_level: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a page says. `write` writes it."""

    sources: Sources
    plan: Outline
    texts: Texts
    notes: Sequence[str]
    """What a reader must know, such as queries without texts."""

    @property
    def n_queries(self) -> int:
        """Queries shown."""
        return len(self.plan.docids)

    def write(self, path: Path, *, title: str | None = None) -> None:
        """Write the page. title: by default the names of both runs."""
        title = title or f"{self.sources.explained} against {self.sources.baseline}"
        write_page(path, self.sources, self.plan, self.texts, title=title, notes=self.notes)


def build_report(files: ReportFiles, measures: Sequence[str], settings: ReportSettings | None = None) -> Report:
    """Explain a run: read its files, compare it with the baseline and choose what to show.

    measures: see `parse_measures`; the first one orders the page. Raises RankLLMError (DataError with the line) for
    files that cannot be read or do not belong together, NoTextsError where there are no texts.
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
    """Raise RankLLMError where the trace is of another run."""
    run = sources.files[sources.explained].run
    if not any(qid in run for qid in traces):
        raise RankLLMError(
            f"{path}: holds none of the run's queries (the run has {examples(run)}; this has "
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
            f"{explained.path} is a run, which holds no texts; give --requests, or --queries and --corpus"
        )
    texts.check(plan.docids)
    return texts


def _notes(sources: Sources, plan: Outline, texts: Texts) -> list[str]:
    """What a reader of the page must know, and its maker, too."""
    notes = []
    n_queries = plan.comparison.n_queries
    if len(plan.docids) < n_queries:
        notes.append(f"Shown are the {len(plan.docids)} of {n_queries} queries that changed most.")
    if qids := texts.missing_qids(plan.docids):
        notes.append(f"{texts.source}: no text for {count(len(qids), 'query')} ({examples(qids)})")
    if docids := texts.missing_docids(plan.docids):
        notes.append(f"{texts.source}: no text for {count(len(docids), 'passage')} ({examples(docids)})")
    if sources.traces and (untraced := [qid for qid in plan.docids if qid not in sources.traces]):
        notes.append(f"The trace lacks {count(len(untraced), 'query')} ({examples(untraced)})")
    return notes

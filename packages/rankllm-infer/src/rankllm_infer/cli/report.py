"""`rankllm-infer report`: one HTML page that explains a ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankllm_core.command_line import PATH
from rankllm_core.errors import RankLLMError
from rankllm_core.files import check_output, refuse_same_file
from rankllm_infer.cli import say
from rankllm_infer.cli.judged import checked_measures, judgement_options, missing_line, read_judgements
from rankllm_infer.cli.options import run_format_option
from rankllm_infer.wording import count, examples

if TYPE_CHECKING:
    from rankllm_core.trec import RunFormat
    from rankllm_infer.report.content import Outline, Sources
    from rankllm_infer.report.passages import Texts
    from rankllm_infer.report.ranked_files import RankedFile
    from rankllm_infer.report.traces import Call

_PASSAGE_CHARACTERS = 2_000


@click.command("report")
@click.argument("run", type=PATH, metavar="RUN")
@judgement_options(("nDCG@10", "MRR@10"))
@run_format_option
@click.option("--baseline", type=PATH, help="Run to compare with.  [default: the order of --requests]")
@click.option("--also", type=PATH, multiple=True, help="Further run, in the figures alone; may be repeated.")
@click.option("--requests", type=PATH, help="Texts: what was reranked.  [default: RUN, where it holds texts]")
@click.option("--queries", type=PATH, help="Texts of the queries, with --corpus in place of --requests.")
@click.option("--corpus", type=PATH, help="Texts of the passages, with --queries.")
@click.option("--trace", type=PATH, help="Model calls of RUN, as rerank --trace writes them.")
@click.option("--output", type=PATH, help="The page.  [default: RUN.html]")
@click.option("--title", help="Of the page.  [default: the names of both runs]")
@click.option("--depth", type=click.IntRange(1), default=20, help="Passages of each query.")
@click.option("--max-queries", type=click.IntRange(1), help="Show the queries that changed most.  [default: all]")
@click.option("--prompt-characters", type=click.IntRange(0), default=1_000, help="Of each prompt of the trace.")
@click.option(
    "--run-queries-only/--no-run-queries-only",
    default=False,
    help="Over the judged queries that every run holds. By default one that a run lacks counts 0 for it.",
)
@click.option("--overwrite/--no-overwrite", default=False, help="Replace the output if it exists.")
def command(**given: Any) -> None:
    """Explain a ranking: write one HTML page that needs no network.

    What changed against the baseline, query by query: figures with significance, cost, passages with ranks before and
    after, grades, model scores, and with --trace what the model was asked and what it answered.
    RUN is a run, or better the JSON Lines of `rerank --output-jsonl`, which also tell model scores, cost and how
    answers were read. Measures, runs and -c are those of `evaluate`; the first measure orders the page.
    """
    from rankllm_infer.report.content import Sources, outline
    from rankllm_infer.report.page import write_page

    files = _named_files(given)
    output: Path = given["output"] or given["run"].with_name(given["run"].name + ".html")
    _check_output(output, given)
    measures = checked_measures(
        given["names"],
        relevance_level=given["relevance_level"],
        is_complete=given["is_complete"],
        run_queries_only=given["run_queries_only"],
    )
    grades = read_judgements(given["qrels"], list(files.values()))
    sources = Sources(qrels=grades, files=_read_files(files, given["run_format"]), traces=_read_traces(given))
    _check_traces(sources, given["trace"])
    plan = outline(
        sources,
        measures,
        depth=given["depth"],
        max_queries=given["max_queries"],
        run_queries_only=given["run_queries_only"],
        relevance_level=given["relevance_level"],
    )
    texts = _read_texts(given, sources, plan)
    notes = [*_missing(sources, plan), *_notes(sources, plan, texts)]
    for note in notes:
        say(note)
    title = given["title"] or f"{sources.explained} against {sources.baseline}"
    write_page(output, sources, plan, texts, title=title, notes=notes)
    say(f"Wrote {output} ({count(len(plan.docids), 'query')}, {output.stat().st_size / 1e6:.1f} MB)")


def _named_files(given: Mapping[str, Any]) -> dict[str, Path]:
    """Name -> file: the baseline, RUN, the others; a name is the file's own where that is enough to tell them apart."""
    if (given["queries"] is None) != (given["corpus"] is None):
        raise click.UsageError("--queries and --corpus go together")
    if given["requests"] is not None and given["queries"] is not None:
        raise click.UsageError("give the texts by --requests, or by --queries and --corpus")
    baseline = given["baseline"] or given["requests"]
    if baseline is None:
        raise click.UsageError("give a --baseline, or --requests, whose order then is the baseline")
    paths = [baseline, given["run"], *given["also"]]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise click.UsageError(f"{twice[0]} is given twice")
    is_clear = len({path.name for path in paths}) == len(paths)
    names = [path.name if is_clear else str(path) for path in paths]
    if given["baseline"] is None:
        names[0] = f"first stage ({names[0]})"
    return dict(zip(names, paths, strict=True))


def _check_output(output: Path, given: Mapping[str, Any]) -> None:
    check_output(output, overwrite=given["overwrite"])
    read = [given[name] for name in ("run", "baseline", "requests", "queries", "corpus", "trace", "qrels")]
    for source in (*read, *given["also"]):
        if source is not None:
            refuse_same_file(source, output)


def _read_files(files: Mapping[str, Path], run_format: RunFormat) -> dict[str, RankedFile]:
    from rankllm_infer.report.ranked_files import read_ranked

    return {name: read_ranked(path, run_format=run_format) for name, path in files.items()}


def _read_traces(given: Mapping[str, Any]) -> dict[str, tuple[Call, ...]]:
    from rankllm_infer.report.traces import read_traces

    if given["trace"] is None:
        return {}
    return read_traces(given["trace"], prompt_characters=given["prompt_characters"])


def _check_traces(sources: Sources, path: Path | None) -> None:
    """Raise RankLLMError where the trace is of another run."""
    if path is None:
        return
    run = sources.files[sources.explained].run
    if not any(qid in run for qid in sources.traces):
        raise RankLLMError(
            f"{path}: holds none of the run's queries (the run has {examples(run)}; this has "
            f"{examples(sources.traces) or 'none'}); use the trace of the same run"
        )
    for qid, calls in sources.traces.items():
        ranked = {docid for docid, _ in run.get(qid, ())}
        foreign = [docid for call in calls for docid in call.docids if ranked and docid not in ranked]
        if foreign:
            raise RankLLMError(
                f"{path}: query {qid!r}: the model was shown docid {foreign[0]!r}, which {sources.explained} does not "
                "rank; use the trace of the same run"
            )


def _read_texts(given: Mapping[str, Any], sources: Sources, plan: Outline) -> Texts:
    from rankllm_infer.report.passages import texts_of_collection, texts_of_requests

    explained = sources.files[sources.explained]
    if given["queries"] is not None:
        texts = texts_of_collection(given["queries"], given["corpus"], plan.docids, characters=_PASSAGE_CHARACTERS)
    elif given["requests"] is not None or explained.has_texts:
        source = given["requests"] or explained.path
        texts = texts_of_requests(source, plan.docids, characters=_PASSAGE_CHARACTERS)
    else:
        raise click.UsageError(
            f"{explained.path} is a run, which holds no texts; give --requests, or --queries and --corpus"
        )
    texts.check(plan.docids)
    return texts


def _missing(sources: Sources, plan: Outline) -> list[str]:
    """A line for each run that lacks judged queries."""
    n_judged = sum(map(bool, sources.qrels.values()))
    return [
        missing_line(name, qids, n_judged=n_judged, run_queries_only=plan.comparison.run_queries_only)
        for name, qids in plan.comparison.missing_qids.items()
        if qids
    ]


def _notes(sources: Sources, plan: Outline, texts: Texts) -> Sequence[str]:
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

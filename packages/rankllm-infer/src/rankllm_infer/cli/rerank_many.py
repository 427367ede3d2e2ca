"""A run of `rerank` over many queries: begun, broken off, gone on with, written."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rankllm_core.errors import RankLLMError
from rankllm_core.files import check_output, refuse_same_file
from rankllm_infer.cli import EXIT_SOME_FAILED, say
from rankllm_infer.cli.last_steps import LastSteps, last_steps
from rankllm_infer.cli.progress import ShownProgress, prompt_counter
from rankllm_infer.options import RerankOptions
from rankllm_infer.ranking.progress import PromptProgress
from rankllm_infer.wording import count

if TYPE_CHECKING:
    from rankllm_core.trec import Qrels
    from rankllm_core.types import Request, Result
    from rankllm_infer.api import Reranker
    from rankllm_infer.evaluation.evaluate import RunningEvaluation
    from rankllm_infer.jobs.fingerprint import InputDigest
    from rankllm_infer.jobs.journal import Journal
    from rankllm_infer.jobs.outputs import OutputFiles, Summary
    from rankllm_infer.plan import RerankPlan

_MEASURES = ("nDCG@10", "MRR@10", "Recall@100")


@dataclass(slots=True, kw_only=True)
class Run:
    """A run and what it leaves behind."""

    files: OutputFiles
    overwrite: bool
    journal: Journal | None
    """None where nothing but figures is asked for: there is no output that a journal would be beside."""
    digest: InputDigest | None
    last: LastSteps
    qids: Sequence[str] = ()
    sizes: dict[str, int] = field(default_factory=dict)
    """qid -> number of candidates."""
    qrels: Qrels | None = None
    began: float = field(default_factory=time.monotonic)
    is_under_way: bool = False
    """Whether there is something that a stop must not lose."""


@contextmanager
def open_run(files: OutputFiles, *, overwrite: bool, resume: bool, sources: Sequence[str | Path]) -> Iterator[Run]:
    """Lock the run's outputs and see how far it is. Says how to go on where the block is left before the run is done.

    Raises RankLLMError where an output cannot be written, or is there already and not this run's to replace.
    """
    with last_steps(say) as last:
        if files.paths():
            with _open_journal(files, overwrite=overwrite, sources=sources) as journal:
                run = _begin(files, journal, last, overwrite=overwrite, resume=resume)
                try:
                    yield run
                except BaseException:
                    if run.is_under_way and not journal.is_bare:
                        say(_how_to_go_on(run, journal))
                    raise
        else:
            yield Run(files=files, overwrite=overwrite, journal=None, digest=None, last=last)


def _open_journal(files: OutputFiles, *, overwrite: bool, sources: Sequence[str | Path]) -> Journal:
    from rankllm_infer.jobs.journal import Journal, journal_path

    for output in files.paths():
        check_output(output, overwrite=True)
        for source in sources:
            refuse_same_file(source, output)
    path, *others = (journal_path(output) for output in files.paths())
    check_output(path, overwrite=True)
    for source in sources:
        refuse_same_file(source, path)
    if path in files.paths():
        raise RankLLMError(f"{path}: is to hold an output and the journal of {files.paths()[0]}; use another name")
    if not overwrite and (beside := [other for other in others if other.exists()]):
        raise RankLLMError(
            f"{beside[0]}: an unfinished run that does not write {files.paths()[0]}; "
            "give the outputs that it was begun with, or delete it"
        )
    return Journal(path, is_new=overwrite)


def _begin(files: OutputFiles, journal: Journal, last: LastSteps, *, overwrite: bool, resume: bool) -> Run:
    from rankllm_infer.jobs.fingerprint import InputDigest

    for warning in journal.warnings:
        say(f"Warning: {warning}")
    run = Run(files=files, overwrite=overwrite, journal=journal, digest=InputDigest(), last=last)
    _check_outputs(run, resume=resume)
    if resume:
        journal.forget_failed()
    return run


def rerank_many(run: Run, requests: Iterable[Request], model: str, options: RerankOptions) -> int:
    """Compute what is not known yet, write the outputs, say what it came to; gives the exit status."""
    from rankllm_infer.evaluation.evaluate import RunningEvaluation
    from rankllm_infer.jobs.outputs import NothingWrittenError, Summary
    from rankllm_infer.plan import plan_reranking
    from rankllm_infer.screen import summary_lines

    plan = plan_reranking(model, options)
    summary = Summary()
    figures = None if run.qrels is None else RunningEvaluation(run.qrels, _MEASURES)
    written = run.files.paths()
    try:
        if run.journal is None:
            with load_model(plan) as reranker:
                _write(run, _computed(run, requests, reranker), summary, figures)
        else:
            _compute(run, run.journal, requests, plan)
            _write(run, map(run.journal.result, requests), summary, figures)
    except NothingWrittenError:
        written = ()
    _close(run, summary)
    for line in summary_lines(summary, seconds=time.monotonic() - run.began, files=written):
        say(line)
    if len(summary.failures) == summary.n_queries:
        say("Error: no query could be ranked; nothing was written")
    else:
        if summary.failures and run.journal is not None:
            say("To try the failed ones again, and compute nothing else: the same command with --resume")
        if figures is not None:
            _print_figures(figures, n_ranked=summary.n_queries - len(summary.failures))
    return EXIT_SOME_FAILED if summary.failures else 0


@contextmanager
def load_model(plan: RerankPlan) -> Iterator[Reranker]:
    """The plan's model, loaded, and what a user should know of it."""
    from rankllm_infer.api import start

    with start(plan) as reranker:
        for warning in reranker.warnings:
            say(f"Warning: {warning}")
        say(f"Reranking: {reranker.description}")
        yield reranker


def _compute(run: Run, journal: Journal, requests: Iterable[Request], plan: RerankPlan) -> None:
    """Put into the journal what it lacks."""
    from rankllm_infer.jobs.fingerprint import LOADED_SETTINGS, loaded_settings, run_settings

    settings = run_settings(plan, requests=str(run.digest), environment=os.environ)
    # What is refused should be refused before the model is loaded.
    journal.check(settings, unknown=LOADED_SETTINGS)
    if journal.settings:
        say(f"Going on with {journal.path}: {journal.n_finished} of {count(len(run.qids), 'query')} done")
        if journal.n_failed:
            say(f"{count(journal.n_failed, 'query')} failed; --resume tries again")
    if journal.settings and journal.n_finished == len(run.qids):
        journal.begin(settings, unknown=LOADED_SETTINGS)
        run.is_under_way = True
        return
    with load_model(plan) as reranker:
        in_the_way = [path for path in run.files.paths() if path.exists()] if run.overwrite else []
        journal.begin(settings | loaded_settings(reranker.engine, reranker.placement), outputs=in_the_way)
        run.is_under_way = True
        with _shown_progress(run, reranker) as progress:

            def keep(result: Result) -> None:
                journal.add(result)
                progress.finish(result.query.qid)

            for _ in reranker.stream(requests, on_finished=keep, on_answered=progress.answer, log=journal):
                pass  # All of it is in the journal, and nothing else is kept.


def _computed(run: Run, requests: Iterable[Request], reranker: Reranker) -> Iterator[Result]:
    """Results of a run without a journal."""
    with _shown_progress(run, reranker) as progress:
        yield from reranker.stream(
            requests, on_finished=lambda result: progress.finish(result.query.qid), on_answered=progress.answer
        )


@contextmanager
def _shown_progress(run: Run, reranker: Reranker) -> Iterator[ShownProgress]:
    """The run's prompts as they are answered; those of queries in the journal are done."""
    progress = PromptProgress(reranker.n_prompts, run.sizes)
    for qid in run.sizes if run.journal else ():
        if run.journal is not None and run.journal.is_finished(qid):
            progress.skip(qid)
    with prompt_counter("rerank", progress) as show:
        yield ShownProgress(progress, show)


def _write(run: Run, results: Iterable[Result], summary: Summary, figures: RunningEvaluation | None) -> None:
    """Write results into the outputs, which appear when all are there; count and score them."""
    from rankllm_infer.jobs.outputs import open_outputs

    if run.journal is not None:
        _check_outputs(run, resume=True)
        run.journal.note_outputs(run.files.paths(), are_complete=False)
    try:
        with open_outputs(run.files) as writer:
            for result in results:
                summary.add(result)
                writer.write(result)
                if figures is not None and result.status != "failed":
                    figures.add(result.query.qid, [(c.docid, c.score) for c in result.candidates])
            # From here on files appear under their names, and the journal goes: to stop would help nobody.
            run.last.begin()
    except OSError as error:
        where = error.filename or run.files.paths()[0]
        raise RankLLMError(f"{where}: cannot be written ({error.strerror})") from None


def _close(run: Run, summary: Summary) -> None:
    """A journal is for those who go on with it: here, to try failed queries again."""
    run.is_under_way = False
    if run.journal is None:
        return
    if 0 < len(summary.failures) < summary.n_queries:
        run.journal.note_outputs(run.files.paths(), are_complete=True)
    else:
        run.journal.remove()


def _check_outputs(run: Run, *, resume: bool) -> None:
    """Raise RankLLMError where a file is in the way that this run may not replace."""
    journal = run.journal
    if run.overwrite or journal is None:
        return
    for path in run.files.paths():
        is_ours = str(path.absolute()) in journal.outputs
        if path.exists() and is_ours and journal.is_complete and not resume:
            raise RankLLMError(
                f"{path}: exists; {count(journal.n_failed, 'query')} of its run failed: --resume tries again, "
                "--overwrite begins anew"
            )
        if is_ours and journal.was_edited(path):
            raise RankLLMError(
                f"{path}: has changed since this run wrote it; move it away to have it written anew, or use --overwrite"
            )
        check_output(path, overwrite=is_ours)


def _how_to_go_on(run: Run, journal: Journal) -> str:
    command = "the same command without --overwrite" if run.overwrite else "the same command"
    done = f"{journal.n_finished} of {count(len(run.qids), 'query')}"
    return f"{done} done and kept in {journal.path}; {command} resumes the run"


def _print_figures(figures: RunningEvaluation, *, n_ranked: int) -> None:
    from rankllm_infer.evaluation.evaluate import evaluation_lines

    if (evaluation := figures.result()) is None:
        say("No figures: none of the queries that were ranked is judged")
        return
    if not figures.has_judged_candidates:
        say("No figures: none of the candidates is judged for its query; are the judgements of the same collection?")
        return
    say(
        f"Scores of the {evaluation.n_queries} judged queries among the {n_ranked} ranked by this run "
        "(for all judged queries: rankllm-infer evaluate):"
    )
    for line in evaluation_lines("reranked", evaluation):
        click.echo(line)

"""Resumable run over many queries: answers are stored in a journal, and outputs appear once all are complete.

    with open_run(OutputFiles(run=Path("out.trec"))) as run:
        run.read(requests)
        report = run.rerank(plan_reranking("castorini/first_mistral"))

The same lines resume the run where it was interrupted and write the same bytes as an uninterrupted run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_infer.api import Reranker, start_reranker
from rankllm_infer.jobs.fingerprint import LOADED_SETTINGS, InputDigest, check_requests, loaded_settings, run_settings
from rankllm_infer.jobs.journal import Journal
from rankllm_infer.jobs.outputs import (
    LastSteps,
    NothingWrittenError,
    OutputFiles,
    Summary,
    check_outputs,
    last_steps,
    open_journal,
    open_outputs,
)
from rankllm_infer.options import RerankOptions
from rankllm_infer.plan import RerankPlan, plan_reranking
from rankllm_infer.watching import SILENT, PromptProgress, ShownProgress, Watcher, count

if TYPE_CHECKING:
    from rankllm_core.trec import Qrels
    from rankllm_core.types import Request, Result
    from rankllm_infer.evaluation.evaluate import RunningEvaluation
    from rankllm_infer.scheduling.pool import AnswerLog

MEASURES = ("nDCG@10", "MRR@10", "Recall@100")
"""Measures reported for a run with judgements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """Report on a finished run."""

    summary: Summary
    seconds: float
    written: tuple[Path, ...]
    """Output files; empty if no query could be ranked."""
    figures: RunningEvaluation | None
    """Measures on the ranked queries; None without judgements."""
    can_retry: bool
    """True if `resume=True` would retry failed queries and compute nothing else."""
    warnings: tuple[str, ...]
    """Warnings about the model, its card and the options; empty if all results were already in the journal."""

    @property
    def n_ranked(self) -> int:
        """Number of queries with a ranking."""
        return self.summary.n_queries - len(self.summary.failures)


@contextmanager
def open_run(
    files: OutputFiles,
    *,
    overwrite: bool = False,
    resume: bool = False,
    sources: Sequence[str | Path] = (),
    watcher: Watcher = SILENT,
) -> Iterator[RerankRun]:
    """Lock a run's outputs and determine its progress.

    overwrite: start over and replace outputs. resume: also retry failed queries. sources: input files, which must not
    be overwritten. If the block ends before the run is complete, the watcher is told how to resume. Raises RankLLMError
    if an output cannot be written or exists and belongs to another run, ConfigError for `resume` with `overwrite`.
    """
    if resume and overwrite:
        raise ConfigError("resume and overwrite contradict each other: one resumes a run, the other starts over")
    with last_steps(watcher.say) as last:
        if not files.paths():
            yield RerankRun(files=files, overwrite=overwrite, journal=None, last=last, watcher=watcher)
            return
        with open_journal(files, overwrite=overwrite, sources=sources) as journal:
            for warning in journal.warnings:
                watcher.say(f"Warning: {warning}")
            run = RerankRun(files=files, overwrite=overwrite, journal=journal, last=last, watcher=watcher)
            if not overwrite:
                check_outputs(files, journal, resume=resume)
            if resume:
                journal.forget_failed()
            try:
                yield run
            except BaseException:
                if run.is_under_way and not journal.is_bare:
                    watcher.say(run.how_to_resume())
                raise


@dataclass(slots=True, kw_only=True)
class RerankRun:
    """Run with locked outputs, created by `open_run`. Call `read`, then `rerank`."""

    files: OutputFiles
    overwrite: bool
    journal: Journal | None
    """None if only measures are requested: without outputs there is no place for a journal."""
    last: LastSteps
    watcher: Watcher
    requests: Iterable[Request] = ()
    qids: Sequence[str] = ()
    sizes: dict[str, int] = field(default_factory=dict)
    """qid -> number of candidates."""
    digest: InputDigest = field(default_factory=InputDigest)
    began: float = field(default_factory=time.monotonic)
    is_under_way: bool = False
    """True if there is progress that an interruption must not lose."""
    warnings: tuple[str, ...] = ()
    """Warnings of the loaded model."""

    def read(self, requests: Iterable[Request], *, strict: bool = False) -> None:
        """Read all requests once, before a model is loaded. requests: iterated again later, so not an iterator.

        Raises RankLLMError for an iterator and for problems that `check_requests` finds before the model is loaded.
        """
        if isinstance(requests, Iterator):
            raise RankLLMError("requests: expected a collection that can be read twice, found an iterator; use a list")
        shown = self.watcher.counted(requests, "check the input", unit=" queries")
        digest = None if self.journal is None else self.digest
        self.qids = check_requests(shown, self.files, strict=strict, digest=digest, sizes=self.sizes)
        self.requests = requests

    def rerank(self, plan: RerankPlan, *, qrels: Qrels | None = None, max_total_tokens: int | None = None) -> RunReport:
        """Compute the missing results and write the outputs. On RankLLMError, the journal is kept.

        qrels: judgements for `RunReport.figures`. max_total_tokens: token budget including earlier sessions; when it is
        used up, the run stops with TokenLimitError, and a call with a larger budget resumes it.
        """
        from rankllm_infer.evaluation.evaluate import RunningEvaluation

        summary = Summary()
        figures = None if qrels is None else RunningEvaluation(qrels, MEASURES)
        written = self.files.paths()
        try:
            if self.journal is None:
                with load_model(plan, self.watcher) as reranker:
                    self.warnings = reranker.warnings
                    self._write(self._computed(reranker, max_total_tokens), summary, figures)
            else:
                self._compute(self.journal, plan, max_total_tokens)
                self._write(map(self.journal.result, self.requests), summary, figures)
        except NothingWrittenError:
            written = ()
        self._close(summary)
        return RunReport(
            summary=summary,
            seconds=time.monotonic() - self.began,
            written=written,
            figures=figures,
            can_retry=bool(summary.failures) and self.journal is not None,
            warnings=self.warnings,
        )

    def how_to_resume(self) -> str:
        """Describe the progress of an interrupted run and how to resume it."""
        if self.journal is None:
            return ""
        command = "repeat the command without --overwrite" if self.overwrite else "repeat the command"
        done = f"{self.journal.n_finished} of {count(len(self.qids), 'query')}"
        return f"{done} done and saved in {self.journal.path}; {command} to resume"

    def _compute(self, journal: Journal, plan: RerankPlan, max_total_tokens: int | None) -> None:
        """Compute what the journal lacks."""
        settings = run_settings(plan, requests=str(self.digest), environment=os.environ)
        # Report incompatible settings before the model is loaded.
        journal.check(settings, unknown=LOADED_SETTINGS)
        if journal.settings:
            self.watcher.say(
                f"Resuming from {journal.path}: {journal.n_finished} of {count(len(self.qids), 'query')} done"
            )
            if journal.n_failed:
                self.watcher.say(f"{count(journal.n_failed, 'query')} failed; --resume retries them")
        if journal.settings and journal.n_finished == len(self.qids):
            journal.begin(settings, unknown=LOADED_SETTINGS)
            self.is_under_way = True
            return
        log: AnswerLog = journal
        if max_total_tokens is not None:
            from rankllm_infer.jobs.token_limit import limited_log

            log = limited_log(journal, self.requests, max_total_tokens)
        with load_model(plan, self.watcher) as reranker:
            self.warnings = reranker.warnings
            in_the_way = [path for path in self.files.paths() if path.exists()] if self.overwrite else []
            journal.begin(settings | loaded_settings(reranker.engine, reranker.placement), outputs=in_the_way)
            self.is_under_way = True
            with self._watched(reranker) as progress:

                def keep(result: Result) -> None:
                    journal.add(result)
                    progress.finish(result.query.qid)

                for _ in reranker.stream(self.requests, on_finished=keep, on_answered=progress.answer, log=log):
                    pass  # Results are in the journal; nothing is held in memory.

    def _computed(self, reranker: Reranker, max_total_tokens: int | None) -> Iterator[Result]:
        """Yield the results of a run without a journal."""
        with self._watched(reranker) as progress:

            def finish(result: Result) -> None:
                progress.finish(result.query.qid)

            if max_total_tokens is not None:
                from rankllm_infer.jobs.token_limit import limited

                finish = limited(finish, max_total_tokens)
            yield from reranker.stream(self.requests, on_finished=finish, on_answered=progress.answer)

    @contextmanager
    def _watched(self, reranker: Reranker) -> Iterator[ShownProgress]:
        """Show the run's prompts as they are answered; those of queries in the journal count as done."""
        progress = PromptProgress(reranker.n_prompts, self.sizes)
        for qid in self.sizes if self.journal else ():
            if self.journal is not None and self.journal.is_finished(qid):
                progress.skip(qid)
        with self.watcher.prompts("rerank", progress) as show:
            yield ShownProgress(progress, show)

    def _write(self, results: Iterable[Result], summary: Summary, figures: RunningEvaluation | None) -> None:
        """Write results to the outputs, which appear once all are written; summarize and evaluate them."""
        if self.journal is not None:
            if not self.overwrite:
                check_outputs(self.files, self.journal, resume=True)
            self.journal.note_outputs(self.files.paths(), are_complete=False)
        try:
            with open_outputs(self.files) as writer:
                for result in results:
                    summary.add(result)
                    writer.write(result)
                    if figures is not None and result.status != "failed":
                        figures.add(result.query.qid, [(c.docid, c.score) for c in result.candidates])
                # From here on files appear under their names and the journal is removed: interrupting would only
                # cause damage.
                self.last.begin()
        except OSError as error:
            where = error.filename or self.files.paths()[0]
            raise RankLLMError(f"{where}: cannot be written ({error.strerror})") from None

    def _close(self, summary: Summary) -> None:
        """Remove the journal, or keep it if failed queries can be retried."""
        self.is_under_way = False
        if self.journal is None:
            return
        if 0 < len(summary.failures) < summary.n_queries:
            self.journal.note_outputs(self.files.paths(), are_complete=True)
        else:
            self.journal.remove()


def rerank_to_files(
    requests: Iterable[Request],
    model: str | Path,
    options: RerankOptions | None = None,
    *,
    files: OutputFiles,
    qrels: Qrels | None = None,
    strict: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    sources: Sequence[str | Path] = (),
    max_total_tokens: int | None = None,
    watcher: Watcher = SILENT,
) -> RunReport:
    """Rerank requests into files, like `rankllm-infer rerank`. Calling it again resumes an interrupted run.

    requests: a list or another collection, because it is iterated twice. qrels: judgements for `RunReport.figures`. The
    other arguments are those of `open_run`, `RerankRun.read` and `RerankRun.rerank`. Raises RankLLMError, and
    ConfigError if there is nothing to write.
    """
    if not files.paths() and qrels is None:
        raise ConfigError("files: expected at least one output, or judgements to evaluate the run with; found neither")
    with open_run(files, overwrite=overwrite, resume=resume, sources=sources, watcher=watcher) as run:
        run.read(requests, strict=strict)
        return run.rerank(plan_reranking(model, options), qrels=qrels, max_total_tokens=max_total_tokens)


@contextmanager
def load_model(plan: RerankPlan, watcher: Watcher = SILENT) -> Iterator[Reranker]:
    """Load a plan's model and pass its warnings and description to the watcher."""
    with start_reranker(plan) as reranker:
        for warning in reranker.warnings:
            watcher.say(f"Warning: {warning}")
        watcher.say(f"Reranking: {reranker.description}")
        yield reranker

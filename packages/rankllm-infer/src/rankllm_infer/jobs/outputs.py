"""Outputs of a reranking run: run, results and trace, checked beforehand and written completely or not at all.

A signal received while they are published is recorded but does not interrupt publishing.
"""

from __future__ import annotations

import atexit
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, Literal

from rankllm_core.data.records import result_to_dict
from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.files import check_output, dumps, refuse_same_file, write_text
from rankllm_core.prompts.content import count_findings
from rankllm_core.trec import run_lines
from rankllm_core.types import Result, Usage, WindowTrace
from rankllm_infer.jobs.journal import Journal, journal_path
from rankllm_infer.watching import count

RunFormat = Literal["trec", "tsv", "msmarco"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFiles:
    """Paths of the outputs; None: not written."""

    run: Path | None = None
    run_format: RunFormat | None = None
    """None: TSV if the file name ends in .tsv, otherwise TREC."""
    tag: str = "rankllm"
    results: Path | None = None
    """Results (JSONL, one query per line); can be read back as a requests file."""
    trace: Path | None = None
    """Prompts and answers of all model calls (JSONL, one query per line)."""

    def __post_init__(self) -> None:
        names = [os.path.realpath(path) for path in self.paths()]
        if twice := [path for path, name in zip(self.paths(), names, strict=True) if names.count(name) > 1]:
            raise ConfigError(f"{twice[0]}: given for two outputs; give each its own file")

    def paths(self) -> tuple[Path, ...]:
        """Return the files that will be written."""
        return tuple(path for path in (self.run, self.results, self.trace) if path is not None)

    @property
    def run_layout(self) -> RunFormat:
        """Format that the run is written in."""
        return "trec" if self.run is None else run_format_of(self.run, self.run_format)


def run_format_of(path: Path, asked: str | None) -> RunFormat:
    """Return the format asked for; by default TSV if the name ends in `.tsv`, else TREC."""
    if asked in ("trec", "tsv", "msmarco"):
        return asked  # type: ignore[return-value]
    return "tsv" if path.name.removesuffix(".gz").endswith(".tsv") else "trec"


def open_journal(files: OutputFiles, *, overwrite: bool, sources: Sequence[str | Path]) -> Journal:
    """Open the journal next to a run's first output. sources: input files.

    Raises RankLLMError if an output or the journal cannot be written or would replace an input.
    """
    for output in files.paths():
        check_output(output, overwrite=True)
        for source in sources:
            refuse_same_file(source, output)
    path, *others = (journal_path(output) for output in files.paths())
    check_output(path, overwrite=True)
    for source in sources:
        refuse_same_file(source, path)
    if path in files.paths():
        raise RankLLMError(f"{path}: is needed for the journal of {files.paths()[0]}; use another name for this output")
    if not overwrite and (beside := [other for other in others if other.exists()]):
        raise RankLLMError(
            f"{beside[0]}: unfinished run without the output {files.paths()[0]}; "
            "give the outputs it was started with, or delete it"
        )
    return Journal(path, is_new=overwrite)


def check_outputs(files: OutputFiles, journal: Journal, *, resume: bool) -> None:
    """Raise RankLLMError if an output exists that the journal's run may not replace.

    resume: True if failed queries are to be retried or this run's outputs are being written.
    """
    for path in files.paths():
        is_ours = str(path.absolute()) in journal.outputs
        if path.exists() and is_ours and journal.is_complete and not resume:
            raise RankLLMError(
                f"{path}: exists; {count(journal.n_failed, 'query')} of its run failed: --resume retries them, "
                "--overwrite starts over"
            )
        if is_ours and journal.was_edited(path):
            raise RankLLMError(
                f"{path}: has changed since this run wrote it; move it away to have it rewritten, or use --overwrite"
            )
        check_output(path, overwrite=is_ours)


@contextmanager
def open_outputs(files: OutputFiles) -> Iterator[ResultWriter]:
    """Yield a writer whose files appear under their names at the end of the block, unless no result was written."""
    with ExitStack() as stack:
        named = {"run": files.run, "results": files.results, "trace": files.trace}
        streams = {name: stack.enter_context(write_text(path)) for name, path in named.items() if path is not None}
        writer = ResultWriter(files, streams)
        yield writer
        if not writer.n_written:
            raise NothingWrittenError("no query could be ranked; nothing was written")


class ResultWriter:
    """Writes results one at a time; failed ones are omitted from all files."""

    def __init__(self, files: OutputFiles, streams: dict[str, IO[str]]) -> None:
        self._files = files
        self._streams = streams
        self.n_written = 0

    def write(self, result: Result) -> None:
        """Write one result to all files."""
        if result.status == "failed":
            return
        self.n_written += 1
        if stream := self._streams.get("run"):
            ranking = [(candidate.docid, candidate.score) for candidate in result.candidates]
            stream.writelines(run_lines(result.query.qid, ranking, format=self._files.run_layout, tag=self._files.tag))
        if stream := self._streams.get("results"):
            stream.write(dumps(result_to_dict(result)) + "\n")
        if stream := self._streams.get("trace"):
            stream.write(dumps(trace_to_dict(result)) + "\n")


class NothingWrittenError(RankLLMError):
    """No result was written, so no output file is created."""


def trace_to_dict(result: Result) -> dict[str, object]:
    """Convert the model calls of one query to rank_llm's invocations history, with additional fields."""
    return {
        "query": {"text": result.query.text, "qid": result.query.qid},
        "invocations_history": [_call_to_dict(call) for call in result.trace],
    }


def _call_to_dict(call: WindowTrace) -> dict[str, object]:
    return {
        "prompt": call.prompt,
        "response": call.response,
        "input_token_count": call.usage.prompt_tokens,
        "output_token_count": call.usage.completion_tokens,
        "start": call.start,
        "docids": list(call.docids),
        "order": list(call.order),
        "scores": [score if math.isfinite(score) else None for score in call.scores] if call.scores else None,
        "status": call.status,
        "defects": list(call.defects),
    }


@dataclass(slots=True)
class Summary:
    """Summary of a run."""

    statuses: dict[str, int] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    failures: dict[str, str] = field(default_factory=dict)
    """qid -> reason for the failure, in one line."""
    empty_qids: list[str] = field(default_factory=list)
    """Queries without candidates."""
    n_showing_nothing: int = 0
    """Number of passages for which the prompt contains no text."""
    n_shown_alike: int = 0
    """Number of passages whose text in the prompt is identical to that of a different passage."""
    misshown_qids: list[str] = field(default_factory=list)
    """Queries with passages of either of these two kinds."""

    @property
    def n_queries(self) -> int:
        """Number of queries seen, including failed ones."""
        return sum(self.statuses.values())

    def add(self, result: Result) -> None:
        """Add one result."""
        self.statuses[result.status] = self.statuses.get(result.status, 0) + 1
        self.usage += result.usage
        if result.status == "failed":
            self.failures[result.query.qid] = result.error or f"query {result.query.qid!r}: failed"
        elif not result.candidates:
            self.empty_qids.append(result.query.qid)
        nothing, alike = count_findings(result.defects) if result.defects else (0, 0)
        if nothing or alike:
            self.n_showing_nothing += nothing
            self.n_shown_alike += alike
            self.misshown_qids.append(result.query.qid)


@contextmanager
def last_steps(say: Callable[[str], None]) -> Iterator[LastSteps]:
    """Context of a run, which calls `begin` before publishing outputs. say: receives a line if a signal arrived
    then."""
    last = LastSteps()
    try:
        yield last
        if last.was_signalled:
            say("Ignored the signal to stop: the run had already finished")
    finally:
        last.end()


class LastSteps:
    """Record signals instead of being interrupted, from `begin` to `end`.

    A second Ctrl-C still interrupts, in case a disk hangs. No effect outside the main thread, which alone receives
    signals.
    """

    def __init__(self) -> None:
        self.was_signalled = False
        self._handlers: dict[signal.Signals, Any] = {}

    def begin(self) -> None:
        """Defer signals from now on; only a second Ctrl-C stops the process."""
        if self._handlers or threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            self._handlers[number] = signal.signal(number, self._note)
        atexit.unregister(_ignore_signals)
        atexit.register(_ignore_signals)

    def end(self) -> None:
        """Restore the previous signal handlers."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.was_signalled and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.was_signalled = True


def _ignore_signals() -> None:
    """Ignore the first signal while Python shuts down; it would only print a traceback."""
    for number in _SIGNALS:
        signal.signal(number, lambda number, frame: signal.signal(number, signal.SIG_DFL))

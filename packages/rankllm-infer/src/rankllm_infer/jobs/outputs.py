"""Writes what a reranking run leaves behind: run, results, trace. Each file appears whole or not at all."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from rankllm_core.data.records import result_to_dict
from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.files import dumps, write_text
from rankllm_core.prompts.content import count_findings
from rankllm_core.trec import run_lines
from rankllm_core.types import Result, Usage, WindowTrace

RunFormat = Literal["trec", "tsv", "msmarco"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFiles:
    """Where to write what; None: not at all."""

    run: Path | None = None
    run_format: RunFormat | None = None
    """None: TSV for a name that ends in .tsv, else TREC."""
    tag: str = "rankllm"
    results: Path | None = None
    """Results JSONL, one query a line; it reads back as a requests file."""
    trace: Path | None = None
    """Prompts and answers of every model call, one query a line."""

    def __post_init__(self) -> None:
        names = [os.path.realpath(path) for path in self.paths()]
        if twice := [path for path, name in zip(self.paths(), names, strict=True) if names.count(name) > 1]:
            raise ConfigError(f"{twice[0]}: is to hold two outputs; give each a file of its own")

    def paths(self) -> tuple[Path, ...]:
        """The files that will be written."""
        return tuple(path for path in (self.run, self.results, self.trace) if path is not None)

    @property
    def run_layout(self) -> RunFormat:
        """How the run is written."""
        return "trec" if self.run is None else run_format_of(self.run, self.run_format)


def run_format_of(path: Path, asked: str | None) -> RunFormat:
    """TREC, unless the name ends in `.tsv` or a format is asked for."""
    if asked in ("trec", "tsv", "msmarco"):
        return asked  # type: ignore[return-value]
    return "tsv" if path.name.removesuffix(".gz").endswith(".tsv") else "trec"


@dataclass(slots=True)
class Summary:
    """What a run came to."""

    statuses: dict[str, int] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)
    failures: dict[str, str] = field(default_factory=dict)
    """qid -> why it has no ranking, in one line."""
    empty_qids: list[str] = field(default_factory=list)
    """Queries without candidates."""
    n_showing_nothing: int = 0
    """Prompts' passages of which they hold nothing."""
    n_shown_alike: int = 0
    """Passages that a prompt showed exactly as another, different one."""
    misshown_qids: list[str] = field(default_factory=list)
    """Queries with one of the two."""

    @property
    def n_queries(self) -> int:
        """Queries seen, failed ones included."""
        return sum(self.statuses.values())

    def add(self, result: Result) -> None:
        """Count one result."""
        self.statuses[result.status] = self.statuses.get(result.status, 0) + 1
        self.usage += result.usage
        if result.status == "failed":
            self.failures[result.query.qid] = result.error or f"query {result.query.qid!r}: failed"
        elif not result.candidates:
            self.empty_qids.append(result.query.qid)
        nothing, alike = count_findings(result.defects)
        if nothing or alike:
            self.n_showing_nothing += nothing
            self.n_shown_alike += alike
            self.misshown_qids.append(result.query.qid)


class ResultWriter:
    """Writes results one by one; a failed one is left out of every file."""

    def __init__(self, files: OutputFiles, streams: dict[str, IO[str]]) -> None:
        self._files = files
        self._streams = streams
        self.n_written = 0

    def write(self, result: Result) -> None:
        """Write one result to each of the files."""
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


@contextmanager
def open_outputs(files: OutputFiles) -> Iterator[ResultWriter]:
    """A writer whose files appear under their names at the end of the block, unless no result was written."""
    with ExitStack() as stack:
        named = {"run": files.run, "results": files.results, "trace": files.trace}
        streams = {name: stack.enter_context(write_text(path)) for name, path in named.items() if path is not None}
        writer = ResultWriter(files, streams)
        yield writer
        if not writer.n_written:
            raise NothingWrittenError("no query could be ranked; nothing was written")


class NothingWrittenError(RankLLMError):
    """Not one result: no output file is made."""


def trace_to_dict(result: Result) -> dict[str, object]:
    """The invocations of one query, in the originals' layout with what we know beside it."""
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

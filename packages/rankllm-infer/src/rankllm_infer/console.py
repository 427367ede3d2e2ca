"""Console output: a ranking as a table, a run as a few lines, work in progress as a progress bar."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rankllm_core.command_line import say
from rankllm_core.files import dumps
from rankllm_infer.watching import BRIEF_S, PromptProgress, Watcher, count, examples

if TYPE_CHECKING:
    from rankllm_core.types import Request, Result
    from rankllm_infer.evaluation.evaluate import RunningEvaluation
    from rankllm_infer.jobs.costs import Costs
    from rankllm_infer.jobs.outputs import Summary
    from rankllm_infer.jobs.rerank import RunReport

_STATUS_ORDER = ("ok", "repaired", "fallback", "failed")
_SHOWN_FAILURES = 5
_QUIET_TERMINAL_S, _QUIET_FILE_S = 0.5, 30.0
"""Minimum seconds between updates of a progress bar, on a terminal and in a log file."""


def result_json(result: Result) -> str:
    """Format one result as a line of JSON, as in the results file."""
    from rankllm_core.data.records import result_to_dict

    return dumps(result_to_dict(result))


def result_table(result: Result, request: Request) -> str:
    """Format a ranking as a table: rank, previous rank, docid, model score and the start of the text."""
    from rankllm_core.text import passage_text

    before = {candidate.docid: rank for rank, candidate in enumerate(request.candidates, start=1)}
    docid_width = max([5, *(len(candidate.docid) for candidate in result.candidates)])
    width = max(40, shutil.get_terminal_size().columns - docid_width - 24)
    told = [candidate.model_score for candidate in result.candidates]
    lines = [f"{'rank':>4}  {'was':>3}  {'docid':<{docid_width}}  {'score':>8}  text"]
    for rank, candidate in enumerate(result.candidates, start=1):
        # A passage that the model never scored shows no first-stage score in the model's column.
        score = candidate.model_score if any(value is not None for value in told) else candidate.score
        number = "-" if score is None else f"{score:.3f}"
        text = printable(passage_text(candidate.doc))
        shown = text if len(text) <= width else text[: width - 1] + "…"
        docid = printable(candidate.docid)
        lines.append(f"{rank:>4}  {before[candidate.docid]:>3}  {docid:<{docid_width}}  {number:>8}  {shown}")
    if result.status != "ok":
        lines.append(f"answer: {result.status} ({'; '.join(result.defects)})")
    return "\n".join(lines)


def costs_table(costs: Sequence[Costs], *, prices: tuple[float, float] | None, is_exact: bool) -> str:
    """Format the cost of a run, one line per strategy. prices: per million prompt tokens and per million generated
    tokens."""
    head = ["strategy", "calls", "rounds/query", "prompt tokens", "generated", *(["cost"] if prices else [])]
    rows, notes = [head], []
    for found in costs:
        name = (found.strategy or "pointwise") + (" *" if found.is_chosen and len(costs) > 1 else "")
        if found.problem or found.n_failed:
            unprompted = f"excluding {count(found.n_failed, 'query')} whose prompts do not fit"
            notes.append(f"{found.strategy or 'pointwise'}: {found.problem or unprompted}")
        if found.problem:
            continue
        usage, n = found.usage, max(1, found.n_queries)
        row = [name, f"{usage.calls:,}", f"{usage.rounds / n:.1f}", f"{usage.prompt_tokens:,}"]
        row.append(f"{usage.completion_tokens:,}")
        rows.append([*row, f"{found.price(prompt=prices[0], completion=prices[1]):,.4f}"] if prices else row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    if any(found.is_chosen and len(costs) > 1 for found in costs):
        notes.append("* strategy selected by this command")
    if not is_exact:
        notes.append("token counts are estimated from the text, because the server's tokenizer is unknown")
    return "\n".join([*lines, *notes])


def printable(text: str) -> str:
    """Return the text on one line, without control characters that a terminal would interpret."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def show_report(report: RunReport) -> None:
    """Print the summary of a run to standard error and its metrics to standard output."""
    for line in summary_lines(report.summary, seconds=report.seconds, files=report.written):
        say(line)
    if not report.n_ranked:
        say("Error: no query could be ranked; nothing was written")
        return
    if report.can_retry:
        say("To retry only the failed queries, repeat the command with --resume")
    if report.figures is not None:
        _show_figures(report.figures, n_ranked=report.n_ranked)


def summary_lines(summary: Summary, *, seconds: float, files: Sequence[Path]) -> list[str]:
    """Summarize a run: queries, statuses, calls, tokens, rounds of calls, seconds, failures, files."""
    usage = summary.usage
    statuses = ", ".join(f"{name} {summary.statuses[name]}" for name in _STATUS_ORDER if name in summary.statuses)
    lines = [
        f"{count(summary.n_queries, 'query')} in {seconds:.1f} s: {statuses or 'none'}; {usage.calls:,} model calls, "
        f"{usage.prompt_tokens:,} prompt tokens, {usage.completion_tokens:,} generated; "
        f"{usage.rounds / max(1, summary.n_queries):.1f} rounds per query"
    ]
    if summary.empty_qids:
        lines.append(f"Without candidates: {count(len(summary.empty_qids), 'query')} ({examples(summary.empty_qids)})")
    if summary.misshown_qids:
        lines.append(
            f"Warning: {_not_shown(summary)}, in {count(len(summary.misshown_qids), 'query')} "
            f"({examples(summary.misshown_qids)}): their ranks are not meaningful; see `defects` in the results, and "
            "shorten the queries or allow longer prompts (--context-size, or --q-max-len and --p-max-len)"
        )
    if summary.failures:
        lines.append(f"Failed and omitted from all outputs: {count(len(summary.failures), 'query')}")
        lines += [f"  {reason}" for reason in list(summary.failures.values())[:_SHOWN_FAILURES]]
        if others := list(summary.failures)[_SHOWN_FAILURES:]:
            lines.append(f"  and {len(others)} more: {', '.join(others)}")
    return lines + [f"Wrote {path}" for path in files]


def _not_shown(summary: Summary) -> str:
    found = []
    if n := summary.n_showing_nothing:
        found.append(f"{count(n, 'passage')} absent from the prompt")
    if n := summary.n_shown_alike:
        found.append(f"{count(n, 'passage')} displayed identically to a different one")
    return ", ".join(found)


def _show_figures(figures: RunningEvaluation, *, n_ranked: int) -> None:
    from rankllm_infer.evaluation.evaluate import evaluation_lines

    if (evaluation := figures.result()) is None:
        say("No scores: none of the ranked queries has relevance judgements")
        return
    if not figures.has_judged_candidates:
        say("No scores: no candidate has a relevance judgement for its query; do they belong to this collection?")
        return
    say(
        f"Scores of the {evaluation.n_queries} judged queries among the {n_ranked} ranked by this run "
        "(for all judged queries: rankllm-infer evaluate):"
    )
    for line in evaluation_lines("reranked", evaluation):
        click.echo(line)


@contextmanager
def counter(
    what: str, *, unit: str, total: int | None = None, delay_s: float = BRIEF_S
) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error; yield a function that takes the total number of items done."""
    from tqdm import tqdm

    quiet_s = _QUIET_TERMINAL_S if sys.stderr.isatty() else _QUIET_FILE_S
    with tqdm(desc=what, unit=unit, total=total, delay=delay_s, mininterval=quiet_s, file=sys.stderr) as bar:

        def show(done: int) -> None:
            bar.update(done - bar.n)

        yield show


@contextmanager
def prompt_counter(what: str, progress: PromptProgress) -> Iterator[Callable[[], None]]:
    """Show a progress bar of prompts and finished queries on standard error; yield a function that refreshes it."""
    from tqdm import tqdm

    quiet_s = _QUIET_TERMINAL_S if sys.stderr.isatty() else _QUIET_FILE_S
    with tqdm(
        desc=what, unit=" prompts", total=progress.total, initial=progress.done, mininterval=quiet_s, file=sys.stderr
    ) as bar:

        def show() -> None:
            bar.total = progress.total
            bar.set_postfix_str(f"{progress.n_finished} of {progress.n_queries} queries", refresh=False)
            bar.update(progress.done - bar.n)

        show()
        yield show
        bar.refresh()


SCREEN = Watcher(say=say, counter=counter, prompts=prompt_counter)
"""Watcher that prints lines and progress bars to standard error."""

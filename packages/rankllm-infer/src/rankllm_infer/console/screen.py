"""What a person reads on the screen: one ranking as a table, a run as a few lines."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from rankllm_core.data.records import result_to_dict
from rankllm_core.files import dumps
from rankllm_core.text import passage_text
from rankllm_core.types import Request, Result
from rankllm_infer.console.wording import count, examples, printable
from rankllm_infer.jobs.outputs import Summary

_SHOWN_FAILURES = 5
_ORDER = ("ok", "repaired", "fallback", "failed")


def result_json(result: Result) -> str:
    """One result as a line of JSON, as in the results file."""
    return dumps(result_to_dict(result))


def result_table(result: Result, request: Request) -> str:
    """Rank, docid, where it came from, the model's score and the beginning of the text."""
    before = {candidate.docid: rank for rank, candidate in enumerate(request.candidates, start=1)}
    docid_width = max([5, *(len(candidate.docid) for candidate in result.candidates)])
    width = max(40, shutil.get_terminal_size().columns - docid_width - 24)
    told = [candidate.model_score for candidate in result.candidates]
    lines = [f"{'rank':>4}  {'was':>3}  {'docid':<{docid_width}}  {'score':>8}  text"]
    for rank, candidate in enumerate(result.candidates, start=1):
        # What the model never scored gets no number of another kind beside the model's.
        score = candidate.model_score if any(value is not None for value in told) else candidate.score
        number = "-" if score is None else f"{score:.3f}"
        text = printable(passage_text(candidate.doc))
        shown = text if len(text) <= width else text[: width - 1] + "…"
        docid = printable(candidate.docid)
        lines.append(f"{rank:>4}  {before[candidate.docid]:>3}  {docid:<{docid_width}}  {number:>8}  {shown}")
    if result.status != "ok":
        lines.append(f"answer: {result.status} ({'; '.join(result.defects)})")
    return "\n".join(lines)


def summary_lines(summary: Summary, *, seconds: float, files: Sequence[Path]) -> list[str]:
    """What a run came to: queries, statuses, calls, tokens, rounds of calls, seconds, failures, files."""
    usage = summary.usage
    statuses = ", ".join(f"{name} {summary.statuses[name]}" for name in _ORDER if name in summary.statuses)
    lines = [
        f"{count(summary.n_queries, 'query')} in {seconds:.1f} s: {statuses or 'none'}; {usage.calls:,} model calls, "
        f"{usage.prompt_tokens:,} prompt tokens, {usage.completion_tokens:,} generated; "
        f"{usage.rounds / max(1, summary.n_queries):.1f} rounds a query"
    ]
    if summary.empty_qids:
        lines.append(f"Without candidates: {count(len(summary.empty_qids), 'query')} ({examples(summary.empty_qids)})")
    if summary.misshown_qids:
        lines.append(
            f"Warning: {_not_shown(summary)}, in {count(len(summary.misshown_qids), 'query')} "
            f"({examples(summary.misshown_qids)}): their ranks say little; see `defects` in the results, and shorten "
            "the queries or give the prompt more room (--context-size, or --q-max-len and --p-max-len)"
        )
    if summary.failures:
        lines.append(f"Failed, and in no output: {count(len(summary.failures), 'query')}")
        lines += [f"  {reason}" for reason in list(summary.failures.values())[:_SHOWN_FAILURES]]
        if others := list(summary.failures)[_SHOWN_FAILURES:]:
            lines.append(f"  and {len(others)} more: {', '.join(others)}")
    return lines + [f"Wrote {path}" for path in files]


def _not_shown(summary: Summary) -> str:
    found = []
    if n := summary.n_showing_nothing:
        found.append(f"{count(n, 'passage')} of which the prompt holds nothing")
    if n := summary.n_shown_alike:
        found.append(f"{count(n, 'passage')} shown exactly as a different one")
    return ", ".join(found)

"""Formatting of comparisons: tables for the terminal, records for JSON."""

from __future__ import annotations

from collections.abc import Sequence

from rankllm_infer.evaluation.compare import TIE, ComparedRun, Comparison


def comparison_lines(comparison: Comparison, *, per_query: int = 0) -> list[str]:
    """Format a table for each measure: mean, interval, change, p after Holm, queries better / same / worse.

    per_query: number of queries with the largest gains and losses to show below each table, per run.
    """
    lines: list[str] = []
    for measure, runs in comparison.measures.items():
        if lines:
            lines.append("")
        lines.append(f"{measure} over {comparison.n_queries} queries, baseline {comparison.baseline}")
        lines += aligned([_header(comparison.level), *(_row(run) for run in runs)])
        if per_query:
            baseline = next(run for run in runs if run.difference is None)
            lines += [line for run in runs for line in _query_lines(run, baseline, per_query)]
    return lines


def _header(level: float) -> tuple[str, ...]:
    return ("run", "mean", f"{100 * level:g} % interval", "change", "p (Holm)", "better/same/worse")


def _row(run: ComparedRun) -> tuple[str, ...]:
    low, high = run.interval
    row = (run.name, f"{run.mean:.4f}", f"{low:.4f}-{high:.4f}")
    if (difference := run.difference) is None:
        return (*row, "", "", "")
    counts = f"{difference.n_better}/{difference.n_same}/{difference.n_worse}"
    return (*row, f"{difference.mean:+.4f}", f"{difference.p_holm:.4f}", counts)


def _query_lines(run: ComparedRun, baseline: ComparedRun, most: int) -> list[str]:
    if run.difference is None:
        return []
    gains = list(run.difference.gains.items())
    gained = [qid for qid, gain in gains[:most] if gain > TIE]
    lost = [qid for qid, gain in reversed(gains[-most:]) if gain < -TIE]
    return [
        f"{run.name}  {what}  {qid}  {baseline.per_query[qid]:.4f} -> {run.per_query[qid]:.4f}"
        for what, qids in (("gained", gained), ("lost", lost))
        for qid in qids
    ]


def comparison_to_dict(comparison: Comparison, *, per_query: bool = False) -> dict[str, object]:
    """Convert to a JSON record in full precision. per_query: include qid -> value and qid -> gain for every run."""
    return {
        "baseline": comparison.baseline,
        "n_queries": comparison.n_queries,
        "level": comparison.level,
        "run_queries_only": comparison.run_queries_only,
        "missing_qids": {name: list(qids) for name, qids in comparison.missing_qids.items()},
        "measures": {
            measure: [_run_to_dict(run, per_query=per_query) for run in runs]
            for measure, runs in comparison.measures.items()
        },
    }


def _run_to_dict(run: ComparedRun, *, per_query: bool) -> dict[str, object]:
    record: dict[str, object] = {"run": run.name, "mean": run.mean, "interval": list(run.interval)}
    if (difference := run.difference) is not None:
        record |= {"change": difference.mean, "p": difference.p, "p_holm": difference.p_holm}
        record |= {"is_exact": difference.is_exact}
        record |= {"better": difference.n_better, "same": difference.n_same, "worse": difference.n_worse}
    if per_query:
        record["per_query"] = dict(run.per_query)
        if difference is not None:
            record["gains"] = dict(difference.gains)
    return record


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format the rows of a table, one line each, with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]

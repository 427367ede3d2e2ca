"""Runs side by side: means with intervals, and whether a difference to the baseline is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from rankllm_core.errors import RankLLMError
from rankllm_core.trec import Qrels, Run
from rankllm_infer.evaluation.evaluate import Evaluation, evaluate

TIE = 1e-9
"""Two values of a query that are no farther apart are the same; sums in another order differ by less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A run against the baseline, by one measure. Gains are the run's value minus the baseline's."""

    mean: float
    p: float
    """Of the two-sided paired randomisation test, for this comparison alone."""
    p_holm: float
    """The same, corrected for all comparisons of the measure."""
    is_exact: bool
    """Whether p counts all sign patterns rather than a sample."""
    gains: Mapping[str, float]
    """qid -> gain, the greatest first."""

    @property
    def n_better(self) -> int:
        """Queries with a greater value than the baseline's."""
        return sum(gain > TIE for gain in self.gains.values())

    @property
    def n_worse(self) -> int:
        """Queries with a smaller value than the baseline's."""
        return sum(gain < -TIE for gain in self.gains.values())

    @property
    def n_same(self) -> int:
        """Queries without a difference."""
        return len(self.gains) - self.n_better - self.n_worse


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """One run by one measure."""

    name: str
    mean: float
    interval: tuple[float, float]
    """Of the mean, by the percentile bootstrap."""
    per_query: Mapping[str, float]
    difference: Difference | None
    """None for the baseline itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All runs by all measures, over the same queries."""

    baseline: str
    n_queries: int
    measures: Mapping[str, Sequence[ComparedRun]]
    """Measure -> runs in the order given."""
    missing_qids: Mapping[str, tuple[str, ...]]
    """Run -> judged queries that it lacks."""
    run_queries_only: bool
    level: float
    """Confidence level of the intervals."""


def compare(
    qrels: Qrels,
    runs: Mapping[str, Run],
    measures: Sequence[str],
    *,
    baseline: str | None = None,
    run_queries_only: bool = False,
    relevance_level: int = 1,
    n_resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare runs by trec_eval's measures: each with the baseline, query by query.

    runs: name -> run; at least two. baseline: a name among them, by default the first. measures, relevance_level: as in
    `evaluate`. run_queries_only: over the judged queries that every run holds; else over all judged queries, and one
    that a run lacks counts 0 for it. n_resamples, level, seed: see `significance`.
    Raises RankLLMError that names the run for what `evaluate` refuses, and where no judged query is in all runs.
    """
    if len(runs) < 2:
        raise RankLLMError(f"expected at least two runs to compare, got {len(runs)}")
    baseline = next(iter(runs)) if baseline is None else baseline
    if baseline not in runs:
        raise RankLLMError(f"baseline {baseline!r} is not among the runs; they are {', '.join(runs)}")
    missing = {name: tuple(qid for qid in qrels if qrels[qid] and not run.get(qid)) for name, run in runs.items()}
    if run_queries_only:
        left_out = {qid for qids in missing.values() for qid in qids}
        qrels = {qid: grades for qid, grades in qrels.items() if grades and qid not in left_out}
        if not qrels:
            raise RankLLMError("the runs have no judged query in common: nothing to compare")
    found = {name: _evaluate(name, qrels, run, measures, relevance_level) for name, run in runs.items()}
    first = found[baseline]
    return Comparison(
        baseline=baseline,
        n_queries=first.n_queries,
        measures={
            measure: compare_figures(
                {name: evaluation.per_query[measure] for name, evaluation in found.items()},
                baseline=baseline,
                n_resamples=n_resamples,
                level=level,
                seed=seed,
            )
            for measure in first.means
        },
        missing_qids=missing,
        run_queries_only=run_queries_only,
        level=level,
    )


def _evaluate(name: str, qrels: Qrels, run: Run, measures: Sequence[str], relevance_level: int) -> Evaluation:
    try:
        return evaluate(qrels, run, measures, relevance_level=relevance_level)
    except RankLLMError as error:
        raise RankLLMError(f"{name}: {error}") from None


def compare_figures(
    figures: Mapping[str, Mapping[str, float]],
    *,
    baseline: str,
    n_resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> list[ComparedRun]:
    """Compare runs by one measure. figures: name -> qid -> value, of the same queries for each; baseline is a name."""
    from rankllm_infer.evaluation.significance import bootstrap_interval, holm, randomisation_test

    for name, values in figures.items():
        if values.keys() != figures[baseline].keys():
            raise RankLLMError(f"{name} and {baseline}: expected figures of the same queries")
    base = figures[baseline]
    means = {name: fmean(values.values()) for name, values in figures.items()}
    gains = {
        name: {qid: value - base[qid] for qid, value in values.items()}
        for name, values in figures.items()
        if name != baseline
    }
    tests = {
        name: randomisation_test(
            [0.0 if abs(gain) <= TIE else gain for gain in by_query.values()], n_resamples=n_resamples, seed=seed
        )
        for name, by_query in gains.items()
    }
    corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    compared = []
    for name, values in figures.items():
        difference = None
        if name != baseline:
            difference = Difference(
                mean=means[name] - means[baseline],
                p=tests[name].p,
                p_holm=corrected[name],
                is_exact=tests[name].is_exact,
                gains=dict(sorted(gains[name].items(), key=lambda gain: -gain[1])),
            )
        interval = bootstrap_interval(list(values.values()), n_resamples=n_resamples, level=level, seed=seed)
        run = ComparedRun(name=name, mean=means[name], interval=interval, per_query=values, difference=difference)
        compared.append(run)
    return compared


def comparison_lines(comparison: Comparison, *, per_query: int = 0) -> list[str]:
    """A table for each measure: mean, interval, change, p after Holm, queries better / same / worse.

    per_query: below each table, so many of the queries that gained and lost most, for each run.
    """
    lines: list[str] = []
    for measure, runs in comparison.measures.items():
        if lines:
            lines.append("")
        lines.append(f"{measure} over {comparison.n_queries} queries, baseline {comparison.baseline}")
        lines += _aligned([_header(comparison.level), *(_row(run) for run in runs)])
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


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


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
    """A record for JSON, in full precision; per_query: qid -> value for every run, and qid -> gain."""
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

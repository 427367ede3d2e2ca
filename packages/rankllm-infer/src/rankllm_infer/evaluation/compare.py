"""Compare runs with a baseline: means with confidence intervals, and significance of the differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rankllm_core.errors import RankLLMError
from rankllm_core.trec import Qrels, Run, RunFormat, format_beside_others, read_run
from rankllm_infer.evaluation.evaluate import evaluate, naming
from rankllm_infer.evaluation.judgements import missing_line, read_judgements

TIE = 1e-9
"""Two values of a query this close count as equal; sums in a different order differ by less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A run compared with the baseline by one measure. Gains are the run's value minus the baseline's."""

    mean: float
    p: float
    """p-value of the two-sided paired randomisation test, for this comparison alone."""
    p_holm: float
    """The same, corrected for all comparisons of the measure."""
    is_exact: bool
    """True if p is computed from all sign patterns instead of a sample."""
    gains: Mapping[str, float]
    """qid -> gain, largest first."""

    @property
    def n_better(self) -> int:
        """Number of queries with a larger value than the baseline's."""
        return sum(gain > TIE for gain in self.gains.values())

    @property
    def n_worse(self) -> int:
        """Number of queries with a smaller value than the baseline's."""
        return sum(gain < -TIE for gain in self.gains.values())

    @property
    def n_same(self) -> int:
        """Number of queries with equal values."""
        return len(self.gains) - self.n_better - self.n_worse


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """One run evaluated by one measure."""

    name: str
    mean: float
    interval: tuple[float, float]
    """Percentile bootstrap interval of the mean."""
    per_query: Mapping[str, float]
    difference: Difference | None
    """None for the baseline itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All runs by all measures, over the same queries."""

    baseline: str
    n_queries: int
    measures: Mapping[str, Sequence[ComparedRun]]
    """Measure -> runs in the given order."""
    missing_qids: Mapping[str, tuple[str, ...]]
    """Run -> judged queries missing from it."""
    n_judged: int
    """Number of judged queries, whether or not they occur in the runs."""
    run_queries_only: bool
    level: float
    """Confidence level of the intervals."""

    def missing_lines(self) -> list[str]:
        """Return a line for each run with missing judged queries."""
        return [
            missing_line(name, qids, n_judged=self.n_judged, run_queries_only=self.run_queries_only)
            for name, qids in self.missing_qids.items()
            if qids
        ]


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
    """Compare runs with a baseline by trec_eval's measures, query by query.

    runs: name -> run; at least two. baseline: one of the names, by default the first. measures, relevance_level: as in
    `evaluate`. run_queries_only: average over the judged queries that occur in every run; otherwise over all judged
    queries, where a missing query scores 0. n_resamples, level, seed: see `significance`. Raises RankLLMError naming
    the run for anything that `evaluate` refuses, and if no judged query occurs in all runs.
    """
    if len(runs) < 2:
        raise RankLLMError(f"expected at least two runs to compare, found {len(runs)}")
    baseline = next(iter(runs)) if baseline is None else baseline
    if baseline not in runs:
        raise RankLLMError(f"baseline {baseline!r} is not among the runs: {', '.join(runs)}")
    judged = {qid: grades for qid, grades in qrels.items() if grades}
    missing = {name: tuple(qid for qid in judged if not run.get(qid)) for name, run in runs.items()}
    compared = _in_common(judged, missing) if run_queries_only else qrels
    figures = _figures(compared, runs, measures, relevance_level)
    return Comparison(
        baseline=baseline,
        n_queries=len(next(iter(figures.values()))[baseline]),
        measures={
            measure: compare_figures(by_run, baseline=baseline, n_resamples=n_resamples, level=level, seed=seed)
            for measure, by_run in figures.items()
        },
        missing_qids=missing,
        n_judged=len(judged),
        run_queries_only=run_queries_only,
        level=level,
    )


def compare_files(
    qrels: Path,
    runs: Sequence[Path],
    measures: Sequence[str],
    *,
    baseline: Path | None = None,
    run_format: RunFormat = "auto",
    run_queries_only: bool = False,
    relevance_level: int = 1,
    n_resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare run files, which are named by their paths; see `compare`.

    qrels: TREC or BEIR. runs: TREC, TSV or MS MARCO; run_format: how to read runs with three columns. Raises
    RankLLMError for anything that cannot be read or compared.
    """
    grades = read_judgements(qrels, runs)
    return compare(
        grades,
        {str(path): read_run(path, format=format_beside_others(path, run_format)) for path in runs},
        measures,
        baseline=None if baseline is None else str(baseline),
        run_queries_only=run_queries_only,
        relevance_level=relevance_level,
        n_resamples=n_resamples,
        level=level,
        seed=seed,
    )


def _in_common(judged: Qrels, missing: Mapping[str, Sequence[str]]) -> Qrels:
    """Return the judgements of queries that occur in all runs. Raises RankLLMError if there are none."""
    left_out = {qid for qids in missing.values() for qid in qids}
    common = {qid: grades for qid, grades in judged.items() if qid not in left_out}
    if not common:
        raise RankLLMError("the runs have no judged query in common; nothing to compare")
    return common


def _figures(
    qrels: Qrels, runs: Mapping[str, Run], measures: Sequence[str], relevance_level: int
) -> dict[str, dict[str, Mapping[str, float]]]:
    """Return measure -> name of the run -> qid -> value."""
    if not measures:
        raise RankLLMError("expected at least one measure to compare by, found none")
    figures: dict[str, dict[str, Mapping[str, float]]] = {}
    for name, run in runs.items():
        with naming(name):
            found = evaluate(qrels, run, measures, relevance_level=relevance_level)
        for measure, values in found.per_query.items():
            figures.setdefault(measure, {})[name] = values
    return figures


def compare_figures(
    figures: Mapping[str, Mapping[str, float]],
    *,
    baseline: str,
    n_resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> list[ComparedRun]:
    """Compare runs by one measure. figures: name -> qid -> value, for the same queries in each; baseline: one of the
    names."""
    from rankllm_infer.evaluation.significance import bootstrap_interval

    for name, values in figures.items():
        if values.keys() != figures[baseline].keys():
            raise RankLLMError(f"{name} and {baseline}: expected values for the same queries")
    differences = _differences(figures, baseline=baseline, n_resamples=n_resamples, seed=seed)
    return [
        ComparedRun(
            name=name,
            mean=fmean(values.values()),
            interval=bootstrap_interval(list(values.values()), n_resamples=n_resamples, level=level, seed=seed),
            per_query=values,
            difference=differences.get(name),
        )
        for name, values in figures.items()
    ]


def _differences(
    figures: Mapping[str, Mapping[str, float]], *, baseline: str, n_resamples: int, seed: int
) -> dict[str, Difference]:
    """Return name -> difference for each run but the baseline; p is corrected for all of them."""
    from rankllm_infer.evaluation.significance import holm, randomisation_test

    base = figures[baseline]
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
    return {
        name: Difference(
            mean=fmean(figures[name].values()) - fmean(base.values()),
            p=test.p,
            p_holm=corrected[name],
            is_exact=test.is_exact,
            gains=dict(sorted(gains[name].items(), key=lambda gain: -gain[1])),
        )
        for name, test in tests.items()
    }

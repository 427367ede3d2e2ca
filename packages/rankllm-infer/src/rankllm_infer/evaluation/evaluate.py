"""Evaluation of runs with trec_eval's measures, computed by trec_eval's own code."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rankllm_core.errors import RankLLMError
from rankllm_core.trec import Qrels, Ranking, Run, RunFormat, format_beside_others, read_run, to_float32
from rankllm_infer.evaluation.id_mismatch import check_docids_judged, spelling_difference
from rankllm_infer.evaluation.judgements import missing_line, read_judgements
from rankllm_infer.evaluation.measures import RECIPROCAL_RANK, Measure, parse_measures
from rankllm_infer.watching import examples

QueryValues = Mapping[str, Mapping[str, float]]
"""qid -> pytrec_eval's name of a measure -> value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Measures of one run."""

    means: Mapping[str, float]
    """Measure, as requested -> mean over `n_queries` queries."""
    per_query: Mapping[str, Mapping[str, float]]
    """Measure -> qid -> value, for every query of the mean, in the order of the qrels."""
    n_queries: int
    """Number of queries in the means."""
    missing_qids: tuple[str, ...]
    """Judged queries without candidates in the run. They score 0, or are excluded with `run_queries_only`."""
    unjudged_qids: tuple[str, ...]
    """Queries of the run without judgements. They are never counted."""
    run_queries_only: bool

    @property
    def n_judged(self) -> int:
        """Number of judged queries, whether or not they occur in the run."""
        return self.n_queries + (len(self.missing_qids) if self.run_queries_only else 0)

    def missing_lines(self, name: str) -> list[str]:
        """Return a line about judged queries missing from the run; none if it has all. name: name of the run."""
        if not self.missing_qids:
            return []
        return [missing_line(name, self.missing_qids, n_judged=self.n_judged, run_queries_only=self.run_queries_only)]


def evaluate(
    qrels: Mapping[str, Mapping[str, int]],
    run: Mapping[str, Ranking],
    measures: Sequence[str],
    *,
    run_queries_only: bool = False,
    relevance_level: int = 1,
) -> Evaluation:
    """Evaluate a run like trec_eval -c: means over all judged queries, where a missing query scores 0.

    qrels: qid -> docid -> grade. run: qid -> (docid, score) in any order; candidates are ranked by score, descending as
    float32, ties by docid descending. measures: see `parse_measures`. relevance_level: trec_eval's -l. RR@k (MRR@k) is
    the reciprocal rank over the first k candidates. run_queries_only: average over the judged queries of the run only
    (qrels restricted to the run's queries). Raises ConfigError for an unknown measure; RankLLMError if no query of the
    run is judged, no candidate is judged for its query, a docid occurs twice in a query, or a score is NaN.
    """
    if not any(grades and run.get(qid) for qid, grades in qrels.items()):
        raise RankLLMError(_nothing_judged([qid for qid, grades in qrels.items() if grades], run))
    check_docids_judged(qrels, run)
    return _evaluate(qrels, run, measures, run_queries_only=run_queries_only, relevance_level=relevance_level)


def _evaluate(
    qrels: Mapping[str, Mapping[str, int]],
    run: Mapping[str, Ranking],
    measures: Sequence[str],
    *,
    run_queries_only: bool,
    relevance_level: int = 1,
) -> Evaluation:
    """Evaluate a run with judged queries, like `evaluate`."""
    parsed = parse_measures(measures, relevance_level=relevance_level)
    judged = [qid for qid, grades in qrels.items() if grades]
    present = [qid for qid in judged if run.get(qid)]
    averaged = present if run_queries_only else judged
    found = _trec_eval(qrels, {qid: _scores(qid, run[qid]) for qid in present}, parsed)
    per_query = {
        measure.label: {qid: _value(measure, found[measure.relevance_level].get(qid)) for qid in averaged}
        for measure in parsed
    }
    seen = set(judged)
    return Evaluation(
        means={label: math.fsum(values.values()) / len(averaged) for label, values in per_query.items()},
        per_query=per_query,
        n_queries=len(averaged),
        missing_qids=tuple(qid for qid in judged if not run.get(qid)),
        unjudged_qids=tuple(qid for qid in run if qid not in seen),
        run_queries_only=run_queries_only,
    )


def evaluate_files(
    qrels: Path,
    runs: Sequence[Path],
    measures: Sequence[str],
    *,
    run_format: RunFormat = "auto",
    run_queries_only: bool = False,
    relevance_level: int = 1,
) -> Iterator[tuple[Path, Evaluation]]:
    """Evaluate run files one by one; see `evaluate`.

    qrels: TREC or BEIR. runs: TREC, TSV or MS MARCO; run_format: how to read runs with three columns. Raises
    RankLLMError naming the file for anything that cannot be read or evaluated.
    """
    grades = read_judgements(qrels, runs)
    for path in runs:
        run = read_run(path, format=format_beside_others(path, run_format))
        with naming(path):
            found = evaluate(grades, run, measures, run_queries_only=run_queries_only, relevance_level=relevance_level)
        yield path, found


@contextmanager
def naming(run: str | Path) -> Iterator[None]:
    """Add the name of the run to a RankLLMError raised inside."""
    try:
        yield
    except RankLLMError as error:
        raise RankLLMError(f"{run}: {error}") from None


def evaluate_asked(qrels: Qrels, run: Run, measures: Sequence[str]) -> Evaluation | None:
    """Evaluate over the judged queries of a run, where those without results score 0; None if none has results."""
    asked = {qid: grades for qid, grades in qrels.items() if qid in run and grades}
    return evaluate(asked, run, measures) if any(run[qid] for qid in asked) else None


_MOST_WAITING = 64
"""Number of queries that a running evaluation evaluates at a time."""


class RunningEvaluation:
    """Means over the judged queries of a run whose rankings arrive one by one; only the last few rankings are kept."""

    def __init__(self, qrels: Mapping[str, Mapping[str, int]], measures: Sequence[str]) -> None:
        self._qrels = qrels
        self._measures = parse_measures(measures)
        self._per_query: dict[str, dict[str, float]] = {measure.label: {} for measure in self._measures}
        self._waiting: dict[str, dict[str, float]] = {}
        """qid -> docid -> score of queries evaluated together, which costs a fraction of evaluating them one by one."""
        self._unjudged: list[str] = []
        self.has_judged_candidates = False
        """True if any candidate is judged for its query; otherwise every measure is 0 regardless of the ranking."""

    def add(self, qid: str, ranking: Ranking) -> None:
        """Add a query with its (docid, score). A query without judgements or candidates is not counted."""
        if not (self._qrels.get(qid) and ranking):
            self._unjudged.append(qid)
            return
        grades = self._qrels[qid]
        self.has_judged_candidates = self.has_judged_candidates or any(docid in grades for docid, _ in ranking)
        self._waiting[qid] = _scores(qid, ranking)
        if len(self._waiting) >= _MOST_WAITING:
            self._evaluate_waiting()

    def _evaluate_waiting(self) -> None:
        found = _trec_eval(self._qrels, self._waiting, self._measures)
        for measure in self._measures:
            values = found[measure.relevance_level]
            self._per_query[measure.label].update({qid: _value(measure, values.get(qid)) for qid in self._waiting})
        self._waiting = {}

    def result(self) -> Evaluation | None:
        """Return the means so far; None if no query counts."""
        if self._waiting:
            self._evaluate_waiting()
        n_queries = len(next(iter(self._per_query.values())))
        if not n_queries:
            return None
        return Evaluation(
            means={measure: math.fsum(values.values()) / n_queries for measure, values in self._per_query.items()},
            per_query=self._per_query,
            n_queries=n_queries,
            missing_qids=(),
            unjudged_qids=tuple(self._unjudged),
            run_queries_only=True,
        )


def _scores(qid: str, ranking: Ranking) -> dict[str, float]:
    """Return docid -> score in single precision, as compared by trec_eval."""
    scores: dict[str, float] = {}
    for (docid, score), rounded in zip(ranking, to_float32(score for _, score in ranking), strict=True):
        if math.isnan(rounded):
            raise RankLLMError(f"query {qid!r}, docid {docid!r}: score is {score}, expected a number")
        if docid in scores:
            raise RankLLMError(f"query {qid!r}: docid {docid!r} occurs twice in the run, expected each docid once")
        scores[docid] = rounded
    return scores


def _trec_eval(
    qrels: Mapping[str, Mapping[str, int]],
    scores: Mapping[str, dict[str, float]],
    measures: Sequence[Measure],
) -> dict[int, QueryValues]:
    """Return relevance level -> values of the queries in `scores`."""
    import pytrec_eval

    # trec_eval writes out of bounds (and may crash) if all grades of a query are negative; all its measures are 0.
    safe = {qid: dict(qrels[qid]) for qid in scores if max(qrels[qid].values()) >= 0}
    found: dict[int, QueryValues] = {}
    for level in sorted({measure.relevance_level for measure in measures}):
        keys = {measure.key for measure in measures if measure.relevance_level == level}
        evaluator = pytrec_eval.RelevanceEvaluator(safe, keys, relevance_level=level)
        found[level] = evaluator.evaluate({qid: scores[qid] for qid in safe}) if safe else {}
    return found


def _value(measure: Measure, values: Mapping[str, float] | None) -> float:
    """Return a query's value; 0 if trec_eval has none."""
    value = 0.0 if values is None else values[measure.key]
    if measure.trec_name == RECIPROCAL_RANK and measure.cutoff is not None:
        # recip_rank is 1 / rank of the first relevant document, which tells whether it is within the cutoff.
        return value if value and round(1 / value) <= measure.cutoff else 0.0
    return value


def _nothing_judged(judged: Sequence[str], run: Mapping[str, Ranking]) -> str:
    if not any(run.values()):
        return "the run is empty; nothing to evaluate"
    return (
        f"no query of the run is judged: the run has {examples(run)}; the qrels have {examples(judged) or 'none'}"
        f"{spelling_difference(run, judged)}; use the judgements that belong to the queries"
    )


def evaluation_lines(name: str, evaluation: Evaluation, *, per_query: bool = False) -> list[str]:
    """Format `RUN TAB measure TAB mean` lines, values with 4 decimals, without line ends.

    per_query: four columns, `RUN TAB measure TAB qid TAB value`; after the queries of a measure its mean, with qid
    `all`.
    """
    lines: list[str] = []
    for label, mean in evaluation.means.items():
        if per_query:
            lines += [f"{name}\t{label}\t{qid}\t{value:.4f}" for qid, value in evaluation.per_query[label].items()]
            lines.append(f"{name}\t{label}\tall\t{mean:.4f}")
        else:
            lines.append(f"{name}\t{label}\t{mean:.4f}")
    return lines


def evaluation_to_dict(name: str, evaluation: Evaluation, *, per_query: bool = False) -> dict[str, object]:
    """Convert to a JSON record in full precision. per_query: include qid -> measure -> value."""
    record: dict[str, object] = {
        "run": name,
        "measures": dict(evaluation.means),
        "n_queries": evaluation.n_queries,
        "run_queries_only": evaluation.run_queries_only,
        "missing_qids": list(evaluation.missing_qids),
        "unjudged_qids": list(evaluation.unjudged_qids),
    }
    if per_query:
        by_query: dict[str, dict[str, float]] = {}
        for label, values in evaluation.per_query.items():
            for qid, value in values.items():
                by_query.setdefault(qid, {})[label] = value
        record["per_query"] = by_query
    return record

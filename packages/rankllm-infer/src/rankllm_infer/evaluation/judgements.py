"""Judgements: reading them, checking that they match the queries, and judged queries missing from a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rankllm_core.errors import RankLLMError
from rankllm_core.trec import Qrels, read_qrels
from rankllm_infer.watching import count, examples

_PILOT = "; for a partial run, --run-queries-only averages over the queries of the run"


def read_judgements(qrels: Path, runs: Sequence[Path]) -> Qrels:
    """Read the judgements for evaluating runs.

    Raises RankLLMError if there are none or, before reading them, if one of the runs does not exist.
    """
    for path in runs:
        if not path.exists():
            raise RankLLMError(f"{path}: no such file")
    grades = read_qrels(qrels)
    if not grades:
        raise RankLLMError(f"{qrels}: contains no judgements")
    return grades


def check_judged(qrels: Qrels, qids: Iterable[str], *, source: str | Path) -> None:
    """Raise RankLLMError if none of the queries is judged. source: origin of the judgements, for the message."""
    asked = list(qids)
    if not any(qrels.get(qid) for qid in asked):
        raise RankLLMError(
            f"{source}: judges none of the {len(asked)} queries (the queries are {examples(asked)}; "
            f"it judges {examples(qrels) or 'none'}); use the judgements that belong to the queries"
        )


def missing_line(name: str, missing: Sequence[str], *, n_judged: int, run_queries_only: bool) -> str:
    """Describe which judged queries are missing from a run, the effect on its means and, if they score 0, the
    alternative.

    name: name of the run. n_judged: number of all judged queries.
    """
    effect, way_out = ("excluded from the means", "") if run_queries_only else ("counted as 0", _PILOT)
    n_missing = f"{len(missing)} of {count(n_judged, 'judged query')} missing from the run"
    return f"{name}: {n_missing}, {effect} ({examples(missing)}){way_out}"

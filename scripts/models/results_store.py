"""Measurements kept next to the page: an unchanged system is not run again, on any machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rankllm_core.data.records import read_requests
from rankllm_core.files import write_text
from rankllm_core.trec.qrels import read_qrels
from rankllm_core.trec.runs import read_run
from rankllm_infer.evaluation.evaluate import evaluate
from rankllm_infer.evaluation.significance import bootstrap_interval

MEASURES = ("nDCG@10", "MRR@10", "Recall@10")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Cost of a system per query."""

    cpu_s: float
    scale: float = 1.0
    """Factor applied to the seconds, for machines of another speed."""
    calls: float = 0.0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Mean over the judged queries with its 95 % interval."""

    mean: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One system on one set."""

    made_of: Mapping[str, Any]
    """Identity of this run: adapter and settings."""
    figures: Mapping[str, Figure]
    """By metric."""
    per_query: Mapping[str, float]
    """qid -> nDCG@10, rounded to four digits."""
    cost: Cost


Store = dict[str, dict[str, Measured]]
"""Set -> system -> measurement."""


def read_store(path: Path) -> Store:
    """Return the stored measurements; empty if there is no file yet."""
    if not path.exists():
        return {}
    sets = json.loads(path.read_text(encoding="utf-8"))
    return {
        set_name: {system: measured_from(values) for system, values in systems.items()}
        for set_name, systems in sets.items()
    }


def measured_from(values: Mapping[str, Any]) -> Measured:
    """Build a measurement from JSON."""
    return Measured(
        made_of=values["made_of"],
        figures={
            name: Figure(mean=figure["mean"], interval=tuple(figure["interval"]))
            for name, figure in values["figures"].items()
        },
        per_query=values["per_query"],
        cost=Cost(**values["cost"]),
    )


def write_store(path: Path, store: Store) -> None:
    """Write JSON; the file appears complete."""
    sets = {name: {system: asdict(measured) for system, measured in systems.items()} for name, systems in store.items()}
    with write_text(path) as stream:
        stream.write(json.dumps(sets, indent=1) + "\n")


def measure(
    folder: Path,
    system: str,
    *,
    qrels: Path,
    relevance_level: int,
    made_of: Mapping[str, Any],
    cpu_s: float,
    scale: float,
) -> Measured:
    """Evaluate SYSTEM.trec on the judged queries of requests.jsonl.

    cpu_s: of the whole run, on this machine. scale: factor for them (`Cost.scale`).
    """
    qids = [request.query.qid for request in read_requests(folder / "requests.jsonl")]
    grades = read_qrels(qrels)
    judged = {qid: grades[qid] for qid in qids if grades.get(qid)}
    found = evaluate(judged, read_run(folder / f"{system}.trec"), MEASURES, relevance_level=relevance_level)
    figures = {}
    for name in MEASURES:
        low, high = bootstrap_interval(list(found.per_query[name].values()))
        figures[name] = Figure(mean=round(found.means[name], 4), interval=(round(low, 4), round(high, 4)))
    return Measured(
        made_of=made_of,
        figures=figures,
        per_query={qid: round(value, 4) for qid, value in found.per_query["nDCG@10"].items()},
        cost=cost_of(folder / f"{system}.jsonl", cpu_s=cpu_s, scale=scale, n_queries=len(qids)),
    )


def cost_of(results: Path, *, cpu_s: float, scale: float, n_queries: int) -> Cost:
    """Return seconds per query, and calls and tokens per query from the results' usage, if there are results."""
    lines = results.read_text(encoding="utf-8").split("\n") if results.exists() else []
    usages = [json.loads(line)["usage"] for line in lines if line]
    counted = ("calls", "prompt_tokens", "completion_tokens")
    totals = {key: round(sum(usage[key] for usage in usages) / n_queries, 2) for key in counted}
    return Cost(cpu_s=round(cpu_s * scale / n_queries, 3), scale=scale, **totals)

"""docs/RESULTS.md, out of the runs that results.py made: tables by `compare`, costs, and two plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from result_sets import SETS, SYSTEMS, TestSet
from results_plot import draw_cost, draw_gains

from rankllm_core.files import write_text
from rankllm_core.qrels import read_qrels
from rankllm_core.records import read_requests
from rankllm_core.runs import read_run
from rankllm_infer.compare import ComparedRun, compare

MEASURES = ("nDCG@10", "MRR@10", "Recall@10")
TITLES = {system.name: system.title for system in SYSTEMS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a system cost, a query."""

    cpu_s: float
    calls: float = 0.0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SetResults:
    """All systems over one set."""

    test_set: TestSet
    n_queries: int
    measures: Mapping[str, Mapping[str, ComparedRun]]
    """Measure -> system -> figures."""
    costs: Mapping[str, Cost]


def write_page(page: Path, *, data: Path, work: Path) -> None:
    """The page and its plots, beside it. Sets and systems without a run in `work` are left out."""
    found = [results for test_set in SETS if (results := read_results(test_set, data, work / test_set.name))]
    if not found:
        raise click.ClickException(f"{work}: no set has runs of the first stage and of another system")
    draw_gains(found, page.parent / "results-gains.png")
    draw_cost(found, page.parent / "results-cost.png")
    write_queries(page.parent / "results.json", found)
    head = Path(__file__).with_name("results_head.md").read_text(encoding="utf-8")
    with write_text(page) as stream:
        stream.write(head + "\n" + "\n".join([*summary(found), "", *details(found), "", *costs(found)]) + "\n")


def write_queries(path: Path, found: Sequence[SetResults]) -> None:
    """nDCG@10 of every query: set -> system -> qid -> figure, for tests and for whoever wants to compare."""
    values = {
        results.test_set.name: {
            name: {qid: round(value, 4) for qid, value in run.per_query.items()}
            for name, run in results.measures["nDCG@10"].items()
        }
        for results in found
    }
    with write_text(path) as stream:
        stream.write(json.dumps(values, indent=1) + "\n")


def read_results(test_set: TestSet, data: Path, folder: Path) -> SetResults | None:
    """The figures of a set, or None where it has no run to compare."""
    runs = {name: read_run(folder / f"{name}.trec") for name in TITLES if (folder / f"{name}.cost.json").exists()}
    if len(runs) < 2 or "first-stage" not in runs:
        return None
    qids = [request.query.qid for request in read_requests(folder / "requests.jsonl")]
    grades = read_qrels(test_set.path(data, "qrels.txt"))
    judged = {qid: grades[qid] for qid in qids if grades.get(qid)}
    compared = compare(judged, runs, MEASURES, baseline="first-stage", relevance_level=test_set.relevance_level)
    return SetResults(
        test_set=test_set,
        n_queries=compared.n_queries,
        measures={measure: {run.name: run for run in rows} for measure, rows in compared.measures.items()},
        costs={name: read_cost(folder, name, n_queries=len(qids)) for name in runs},
    )


def read_cost(folder: Path, name: str, *, n_queries: int) -> Cost:
    """CPU seconds from results.py, calls and tokens from the results' own usage."""
    cpu_s = json.loads((folder / f"{name}.cost.json").read_text(encoding="utf-8"))["cpu_s"]
    path = folder / f"{name}.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    usages = [json.loads(line)["usage"] for line in lines if line]
    totals = {key: sum(u[key] for u in usages) / n_queries for key in ("calls", "prompt_tokens", "completion_tokens")}
    return Cost(cpu_s=cpu_s / n_queries, **totals)


def summary(found: Sequence[SetResults]) -> list[str]:
    """nDCG@10 of every system over every set, bold where it is significantly above the first stage, italic below."""
    lines = ["## nDCG@10", "", row(["", *(results.test_set.title for results in found)])]
    lines.append(row(["---"] * (len(found) + 1)))
    for name, title in TITLES.items():
        if any(name in results.costs for results in found):
            lines.append(row([title, *(cell(results.measures["nDCG@10"].get(name)) for results in found)]))
    lines.append(row(["queries", *(str(results.n_queries) for results in found)]))
    lines.append(row(["candidates", *(str(results.test_set.depth) for results in found)]))
    return [*lines, "", "**Bold**: above the first stage, _italic_: below it, at p < .05 (randomisation test, Holm)."]


def cell(run: ComparedRun | None) -> str:
    """A mean, marked where the difference to the first stage is significant."""
    if run is None:
        return ""
    text = f"{run.mean:.4f}".removeprefix("0")
    if run.difference is None or run.difference.p_holm >= 0.05:
        return text
    return f"**{text}**" if run.difference.mean > 0 else f"_{text}_"


def details(found: Sequence[SetResults]) -> list[str]:
    """A table for each set: all measures with intervals, changes and p."""
    lines = ["## Set by set"]
    for results in found:
        lines += ["", f"### {results.test_set.title}: {results.n_queries} queries", ""]
        lines.append(row(["", *(f"{measure} (95 %)" for measure in MEASURES), "change", "p", "better/same/worse"]))
        lines.append(row(["---"] * (len(MEASURES) + 4)))
        for name in results.measures[MEASURES[0]]:
            runs = [results.measures[measure][name] for measure in MEASURES]
            means = [f"{run.mean:.4f} ({run.interval[0]:.3f}-{run.interval[1]:.3f})" for run in runs]
            lines.append(row([TITLES[name], *means, *change(runs[0])]))
        if weights := results.test_set.fuse_weights:
            shown = "; ".join(f"{TITLES[name]}: {weight}" for name, weight in weights.items() if name in results.costs)
            lines += ["", f"With `--fuse-weight`, chosen on TREC DL 2020's lists. {shown}."]
    return lines


def change(run: ComparedRun) -> list[str]:
    """Of nDCG@10 against the first stage."""
    if (difference := run.difference) is None:
        return ["", "", ""]
    counts = f"{difference.n_better}/{difference.n_same}/{difference.n_worse}"
    return [f"{difference.mean:+.4f}", f"{difference.p_holm:.4f}", counts]


def costs(found: Sequence[SetResults]) -> list[str]:
    """Calls, tokens and seconds a query."""
    lines = ["## Cost of a query", "", row(["set", "system", "calls", "prompt tokens", "generated", "CPU seconds"])]
    lines.append(row(["---"] * 6))
    for results in found:
        for name, cost in results.costs.items():
            if name != "first-stage":
                counts = [f"{cost.calls:.1f}", f"{cost.prompt_tokens:,.0f}", f"{cost.completion_tokens:,.0f}"]
                shown = counts if cost.calls else ["", "", ""]
                lines.append(row([results.test_set.title, TITLES[name], *shown, f"{cost.cpu_s:.2f}"]))
    return lines


def row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"

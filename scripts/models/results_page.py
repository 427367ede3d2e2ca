"""Write docs/RESULTS.md from the measurements that results.py stores: tables, costs and two plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from result_sets import SETS, SYSTEMS, TREC_DL_PRIOR, TestSet
from results_plot import draw_cost, draw_gains
from results_store import MEASURES, Measured, Store

from rankllm_core.files import write_text
from rankllm_infer.evaluation.compare import ComparedRun, compare_figures

TITLES = {system.name: system.title for system in SYSTEMS}
LEGEND = (
    "**Bold**: significantly higher than the first stage; _italic_: significantly lower "
    "(p < .05, randomization test, Holm's correction)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetResults:
    """All systems on one test set."""

    test_set: TestSet
    measured: Mapping[str, Measured]
    compared: Mapping[str, ComparedRun]
    """Comparison with the first stage by nDCG@10, by system name."""

    @property
    def n_queries(self) -> int:
        """Number of judged queries."""
        return len(next(iter(self.measured.values())).per_query)


def write_page(page: Path, store: Store) -> None:
    """Write the page and its plots into one folder. Sets and systems without measurements are omitted."""
    found = [results for test_set in SETS if (results := results_of(test_set, store.get(test_set.name, {})))]
    if not found:
        raise click.ClickException("no test set has metrics for both the first stage and another system")
    draw_gains(found, page.parent / "results-gains.png")
    draw_cost(found, page.parent / "results-cost.png")
    head, method = (
        Path(__file__).with_name(f"results_{part}.md").read_text(encoding="utf-8") for part in ("head", "method")
    )
    with write_text(page) as stream:
        stream.write(head + "\n" + "\n".join([*summary(found), "", *details(found), "", *costs(found)]) + "\n" + method)


def results_of(test_set: TestSet, kept: Mapping[str, Measured]) -> SetResults | None:
    """Return the metrics for a test set, systems in page order; None if there is nothing to compare."""
    measured = {name: kept[name] for name in TITLES if name in kept}
    if len(measured) < 2 or "first-stage" not in measured:
        return None
    runs = compare_figures({name: m.per_query for name, m in measured.items()}, baseline="first-stage")
    return SetResults(test_set=test_set, measured=measured, compared={run.name: run for run in runs})


def summary(found: Sequence[SetResults]) -> list[str]:
    """nDCG@10 of every system on every set: bold if significantly above the first stage, italic if below."""
    lines = ["## nDCG@10", "", row(["", *(results.test_set.title for results in found)])]
    lines.append(row(["---"] * (len(found) + 1)))
    for name, title in TITLES.items():
        if any(name in results.measured for results in found):
            lines.append(row([title, *(cell(results, name) for results in found)]))
    lines.append(row(["queries", *(str(results.n_queries) for results in found)]))
    lines.append(row(["candidates", *(str(results.test_set.depth) for results in found)]))
    return [*lines, "", LEGEND]


def cell(results: SetResults, name: str) -> str:
    """A system's mean, marked if its difference from the first stage is significant."""
    if name not in results.measured:
        return ""
    text = f"{results.measured[name].figures['nDCG@10'].mean:.4f}".removeprefix("0")
    difference = results.compared[name].difference
    if difference is None or difference.p_holm >= 0.05:
        return text
    return f"**{text}**" if difference.mean > 0 else f"_{text}_"


def details(found: Sequence[SetResults]) -> list[str]:
    """One table per set: all metrics with intervals, changes and p-values."""
    lines = ["## Results by dataset"]
    for results in found:
        lines += ["", f"### {results.test_set.title}: {results.n_queries} queries", ""]
        lines.append(row(["", *(f"{measure} (95 %)" for measure in MEASURES), "change", "p", "better/same/worse"]))
        lines.append(row(["---"] * (len(MEASURES) + 4)))
        for name, measured in results.measured.items():
            figures = [measured.figures[measure] for measure in MEASURES]
            means = [f"{f.mean:.4f} ({f.interval[0]:.3f}-{f.interval[1]:.3f})" for f in figures]
            lines.append(row([TITLES[name], *means, *change(results, name)]))
        if own := [f"{TITLES[name]}: {said}" for name, m in results.measured.items() if (said := settings_of(m))]:
            lines += ["", f"Settings for this set, chosen on TREC DL 2020: {'; '.join(own)}."]
    return lines


def settings_of(measured: Measured) -> str:
    """Return the options that are specific to this set."""
    own = {option: value for option, value in measured.made_of.items() if option.startswith("--")}
    if "--identifier-prior" in own:  # its numbers are kept, to tell one from another
        own["--identifier-prior"] = TREC_DL_PRIOR.name
    return ", ".join(f"`{option} {value}`" for option, value in own.items())


def change(results: SetResults, name: str) -> list[str]:
    """Change in nDCG@10 from the first stage, p-value, and number of queries better/same/worse."""
    if (difference := results.compared[name].difference) is None:
        return ["", "", ""]
    means = {system: results.measured[system].figures["nDCG@10"].mean for system in (name, "first-stage")}
    counts = f"{difference.n_better}/{difference.n_same}/{difference.n_worse}"
    return [f"{means[name] - means['first-stage']:+.4f}", f"{difference.p_holm:.4f}", counts]


def costs(found: Sequence[SetResults]) -> list[str]:
    """Calls, tokens and seconds per query."""
    header = ["dataset", "system", "calls", "prompt tokens", "generated tokens", "CPU seconds"]
    lines = ["## Cost per query", "", row(header), row(["---"] * len(header))]
    for results in found:
        for name, measured in results.measured.items():
            cost = measured.cost
            if name != "first-stage":
                counts = [f"{cost.calls:.1f}", f"{cost.prompt_tokens:,.0f}", f"{cost.completion_tokens:,.0f}"]
                shown = counts if cost.calls else ["", "", ""]
                seconds = f"{'~' * (cost.scale != 1)}{cost.cpu_s:.2f}"
                lines.append(row([results.test_set.title, TITLES[name], *shown, seconds]))
    return lines


def row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"

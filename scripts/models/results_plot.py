"""Plots of the results page: gain per query, and quality against cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from results_page import SetResults

SHOWN = ("minilm", "pointwise", "first")
COLOURS = {
    "first-stage": "#555555",
    "minilm": "#999933",
    "untrained": "#aaaaaa",
    "pointwise": "#0072b2",
    "first": "#d55e00",
    "generation": "#cc79a7",
}
_COLUMNS, _WIDTH_IN, _HEIGHT_IN = 4, 3.0, 2.4


def draw_gains(found: Sequence[SetResults], path: Path) -> None:
    """Per-query change in nDCG@10 against the first stage, sorted: one panel per set, one line per system."""
    figure, panels = panels_of(found, across="queries, sorted by gain", up="change in nDCG@10")
    for results, axes in panels:
        for name in SHOWN:
            run = results.compared.get(name)
            if run is not None and run.difference is not None:
                gains = sorted(run.difference.gains.values(), reverse=True)
                axes.plot(range(1, len(gains) + 1), gains, color=COLOURS[name], label=name, linewidth=1.2)
        axes.axhline(0.0, color="#000000", linewidth=0.6)
        axes.set_ylim(-1, 1)
    save(figure, path)


def draw_cost(found: Sequence[SetResults], path: Path) -> None:
    """nDCG@10 against CPU seconds per query: one panel per set, one point per system."""
    figure, panels = panels_of(found, across="CPU seconds per query", up="nDCG@10")
    for results, axes in panels:
        for name, run in results.compared.items():
            if name == "first-stage":
                axes.axhline(run.mean, color=COLOURS[name], linewidth=0.8, linestyle="--", label=name)
            else:
                axes.scatter(results.measured[name].cost.cpu_s, run.mean, color=COLOURS[name], s=18, label=name)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    save(figure, path)


def panels_of(found: Sequence[SetResults], *, across: str, up: str) -> tuple[Figure, list[tuple[SetResults, Axes]]]:
    """Return a figure with an empty panel per set. across, up: labels of its axes."""
    n_rows = -(-len(found) // _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _WIDTH_IN, n_rows * _HEIGHT_IN), layout="constrained")
    figure.supxlabel(across, fontsize=9)
    figure.supylabel(up, fontsize=9)
    panels = [(results, figure.add_subplot(n_rows, _COLUMNS, index)) for index, results in enumerate(found, start=1)]
    for results, axes in panels:
        axes.set_title(results.test_set.title, fontsize=9)
        axes.tick_params(labelsize=7)
    return figure, panels


def save(figure: Figure, path: Path) -> None:
    """Save the figure with a single legend, in the first panel."""
    figure.axes[0].legend(fontsize=6)
    figure.savefig(path, dpi=90)

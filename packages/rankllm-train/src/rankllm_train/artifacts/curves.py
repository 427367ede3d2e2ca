"""Plot of a run's progress, OUTPUT_DIR/curves.png, drawn from its metrics.jsonl.

Uses matplotlib's object interface only: no window, no backend and no state shared with the caller's own plots.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rankllm_train.artifacts.metrics_log import read_metrics

CURVES_NAME = "curves.png"
_PANELS = {
    "loss": ("loss", "token_loss", "list_loss", "eval_loss"),
    "dev nDCG@10, MRR@10": ("eval_ndcg@10", "eval_mrr@10"),
    "learning rate": ("learning_rate",),
    "gradient norm": ("grad_norm",),
    "tokens/s": ("tokens_per_s",),
    "padding": ("padding",),
}
"""Panel title -> metrics drawn in it, by their names in metrics.jsonl."""
_LABELS = {"loss": "training", "token_loss": "tokens", "list_loss": "lists", "eval_loss": "dev"}
_COLUMNS, _PANEL_WIDTH_IN, _PANEL_HEIGHT_IN = 2, 6.0, 3.2


def draw_curves(output_dir: Path, *, best_step: int | None = None) -> Path | None:
    """Write the plot and return its path, or None if nothing was logged. best_step: step of the best model, marked."""
    entries = read_metrics(output_dir)
    if not any("loss" in entry for entry in entries):
        return None
    target = output_dir / CURVES_NAME
    aside = output_dir / f".{CURVES_NAME}"
    curves_figure(entries, best_step=best_step).savefig(aside, format="png", dpi=110)
    os.replace(aside, target)
    return target


def curves_figure(entries: Sequence[Mapping[str, Any]], *, best_step: int | None = None) -> Any:
    """Return a matplotlib Figure with one panel for each kind of metric in the entries."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    known = {key for entry in entries for key in entry}
    panels = {title: [key for key in keys if key in known] for title, keys in _PANELS.items()}
    shown = {title: keys for title, keys in panels.items() if keys}
    n_rows = -(-len(shown) // _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _PANEL_WIDTH_IN, n_rows * _PANEL_HEIGHT_IN), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (title, keys) in enumerate(shown.items(), start=1):
        axes = figure.add_subplot(n_rows, _COLUMNS, number, title=title, xlabel="step")
        for key in keys:
            _draw(axes, entries, key)
        if best_step is not None and any(key.startswith("eval_") for key in keys):
            axes.axvline(best_step, color="gray", linestyle=":", label="best")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # whole steps only
        axes.grid(alpha=0.3)
        if len(axes.lines) > 1:
            axes.legend()
    return figure


def _draw(axes: Any, entries: Sequence[Mapping[str, Any]], key: str) -> None:
    points = [(entry["step"], entry[key]) for entry in entries if key in entry]
    steps, values = zip(*points, strict=True)
    # Evaluations every few hundred steps are points, the loss of every step is a line.
    marker = "o" if key.startswith("eval_") or len(points) == 1 else None
    label = _LABELS.get(key, key.removeprefix("eval_"))
    axes.plot(steps, values, marker=marker, markersize=4, linewidth=1, label=label)

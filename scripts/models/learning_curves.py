"""Plot how the bundled rerankers learned: losses, and how checkpoints rank the development questions.


    uv run --all-packages python scripts/models/learning_curves.py --models models --work dev \\
      --output docs/learning-curves.png

--models is the output folder of train.sh, --work that of dev_scores.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import click
from dev_scores import MEASURE, SETS, read_scores
from matplotlib.figure import Figure

STAGES = {"pointwise": ("pointwise",), "FIRST": ("first-1", "first-2", "first")}
COLOURS = {"nq": "#0072b2", "nfcorpus": "#d55e00", "wikiqa": "#009e73", "msmarco": "#999933"}
SMOOTH = 20
"""Number of steps over which losses are averaged."""


@click.command()
@click.option("--models", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--work", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--output", required=True, type=click.Path(path_type=Path))
@click.option("--queries", "n_queries", default=60, show_default=True, help="Same value as in dev_scores.py.")
@click.option("--depth", default=20, show_default=True, help="Same value as in dev_scores.py.")
def main(models: Path, work: Path, output: Path, n_queries: int, depth: int) -> None:
    """Draw one row per model: its losses and its scores. Dashed: the first stage."""
    figure = Figure(figsize=(9, 5.4), layout="constrained")
    wanted = {"queries": n_queries, "depth": depth}.items()
    scores = [known for known in read_scores(work / "scores.jsonl") if known.items() >= wanted]
    for row, (title, stages) in enumerate(STAGES.items()):
        left, right = (figure.add_subplot(len(STAGES), 2, 2 * row + column) for column in (1, 2))
        left.set_title(f"{title}: training loss, mean of {SMOOTH} steps; dots: development records", fontsize=9)
        right.set_title(f"{title}: {MEASURE} of development questions", fontsize=9)
        starts = dict(started(models, stages))
        for stage, start in starts.items():
            losses = [line for line in read_metrics(models / stage) if "loss" in line]
            steps = [start + line["step"] for line in losses]
            left.plot(steps, running_mean([line["loss"] for line in losses]), color="#333333", linewidth=1.0)
            evaluations = [line for line in read_metrics(models / stage) if "eval_loss" in line]
            steps = [start + line["step"] for line in evaluations]
            left.plot(steps, [line["eval_loss"] for line in evaluations], "o-", color="#d55e00", ms=3, linewidth=0.8)
            for axes in (left, right):
                axes.axvline(start, color="#bbbbbb", linewidth=0.6)
        for name in SETS:
            points = dict(sorted(points_of(name, scores, starts), key=itemgetter(0)))
            if points:
                right.plot(
                    list(points), [p["0.0"] for p in points.values()], "o-", color=COLOURS[name], label=name, ms=3
                )
                right.axhline(next(iter(points.values()))["1.0"], color=COLOURS[name], linewidth=0.7, linestyle="--")
        for axes in (left, right):
            axes.set_xlabel("steps", fontsize=8)
            axes.tick_params(labelsize=7)
        right.legend(fontsize=7)
    figure.savefig(output, dpi=90)


def started(models: Path, stages: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Yield each stage with the number of steps before it."""
    steps = 0
    for stage in stages:
        yield stage, steps
        steps += max((line["step"] for line in read_metrics(models / stage)), default=0)


def read_metrics(model: Path) -> list[dict[str, Any]]:
    """Return the metrics of a training run."""
    path = model / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def points_of(
    name: str, scores: list[dict[str, Any]], starts: Mapping[str, int]
) -> Iterator[tuple[int, Mapping[str, float]]]:
    """Return steps and scores of the checkpoints of these stages measured on a set."""
    for known in scores:
        stage, _, step = known["adapter"].partition("/step_")
        if known["set"] == name and stage in starts and step:
            yield starts[stage] + int(step), known[MEASURE]


def running_mean(values: list[float]) -> list[float]:
    """Return the running mean over at most SMOOTH values."""
    spans = (values[max(0, place - SMOOTH + 1) : place + 1] for place in range(len(values)))
    return [sum(span) / len(span) for span in spans]


if __name__ == "__main__":
    main()

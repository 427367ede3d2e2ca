"""The plot of a run shows the contents of its metrics file."""

from __future__ import annotations

import json
import sys

import pytest

pytest.importorskip("matplotlib")

from rankllm_train.artifacts.curves import curves_figure, draw_curves

ENTRIES = [
    {"step": 1, "loss": 3.0, "token_loss": 2.0, "list_loss": 0.1, "learning_rate": 0.5, "grad_norm": 7.0},
    {"step": 2, "eval_loss": 2.5, "eval_ndcg@10": 0.4, "eval_mrr@10": 0.3},
    {"step": 3, "loss": 1.0, "token_loss": 0.5, "list_loss": 0.05, "learning_rate": 0.25, "grad_norm": 2.0},
]


def lines(figure):
    """Map panel -> label -> points."""
    return {
        axes.get_title(): {
            line.get_label(): list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axes.lines
        }
        for axes in figure.axes
    }


def test_each_value_is_drawn_over_its_steps():
    """Loss with its parts and dev loss, dev metrics, learning rate, gradient norm; no empty panels."""
    found = lines(curves_figure(ENTRIES))
    assert found["loss"] == {
        "training": [(1, 3.0), (3, 1.0)],
        "tokens": [(1, 2.0), (3, 0.5)],
        "lists": [(1, 0.1), (3, 0.05)],
        "dev": [(2, 2.5)],
    }
    assert found["dev nDCG@10, MRR@10"] == {"ndcg@10": [(2, 0.4)], "mrr@10": [(2, 0.3)]}
    assert list(found["learning rate"].values()) == [[(1, 0.5), (3, 0.25)]]
    assert list(found["gradient norm"].values()) == [[(1, 7.0), (3, 2.0)]]
    assert set(found) == {"loss", "dev nDCG@10, MRR@10", "learning rate", "gradient norm"}


@pytest.mark.parametrize("n_steps", [1, 2, 3, 5, 40, 12_345])
def test_steps_are_whole_numbers(n_steps):
    """Even for very few steps."""
    entries = [{"step": step, "loss": 1.0, "eval_loss": 2.0} for step in (1, n_steps)]
    for axes in curves_figure(entries).axes:
        ticks = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
        assert ticks
        assert all(tick == int(tick) for tick in ticks)
        axes.figure.canvas.draw()
        assert not any("." in label.get_text() for label in axes.get_xticklabels())


def test_the_best_model_is_marked_where_the_dev_data_is_shown():
    """With a line at its step."""
    found = lines(curves_figure(ENTRIES, best_step=2))
    assert [x for x, _ in found["loss"]["best"]] == [2, 2]
    assert "best" in found["dev nDCG@10, MRR@10"]
    assert "best" not in found["learning rate"]


def test_the_picture_is_a_png_and_leaves_matplotlib_as_it_was(tmp_path):
    """No global figures, no temporary files; a line truncated by a kill is ignored."""
    text = "".join(json.dumps(entry) + "\n" for entry in ENTRIES) + '{"step": 4, "lo'
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    path = draw_curves(tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    assert {p.name for p in tmp_path.iterdir()} == {"metrics.jsonl", "curves.png"}
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_a_run_that_logged_nothing_has_no_picture(tmp_path):
    """Fewer steps than --logging-steps."""
    assert draw_curves(tmp_path) is None
    assert list(tmp_path.iterdir()) == []

"""The page of a trained model says what a reader of a model hub looks for, and nothing that nobody chose."""

from __future__ import annotations

import yaml

from rankllm_core.card import ListwiseCard, PointwiseCard
from rankllm_core.template import load_template
from rankllm_train.model_page import model_page
from rankllm_train.recipe import Recipe

LISTWISE = ListwiseCard(template=load_template("rank_zephyr_alpha"))
POINTWISE = PointwiseCard(template=load_template("yes_no"), head="yes-no")


def page(card, **changes):
    """Its header, and its text behind the header."""
    values = {"model.name_or_path": "owner/base", "data.train": "train.jsonl"} | changes
    _, header, text = model_page(Recipe().changed(values), card).split("---\n", 2)
    return yaml.safe_load(header), text


def test_a_hub_reads_the_header():
    """Base, library and task; full weights belong to transformers, adapters to peft."""
    header, _ = page(LISTWISE)
    assert header == {
        "base_model": "owner/base",
        "library_name": "transformers",
        "pipeline_tag": "text-ranking",
        "tags": ["rankllm", "reranker", "listwise"],
    }
    header, _ = page(POINTWISE, **{"method": "pointwise", "lora.enabled": True})
    assert (header["library_name"], header["tags"][-1]) == ("peft", "pointwise")


def test_it_says_what_was_trained_on_and_how():
    """The recipe's values, by hand."""
    changes = {"method": "pointwise", "objective.name": "kl", "optim.learning_rate": 5e-4, "schedule.max_steps": 40}
    changes |= {"lora.enabled": True, "lora.r": 16, "lora.alpha": 8, "lora.start_from": "first/step_2"}
    _, text = page(POINTWISE, **changes, **{"batch.per_device": 2, "batch.accumulation": 4, "data.eval": "dev.jsonl"})
    for row in (
        "| training data | train.jsonl |",
        "| dev data | dev.jsonl |",
        "| prompt template | yes_no |",
        "| objective | kl |",
        "| learning rate | 0.0005, linear |",
        "| length | 40 steps, 2 x 4 records a step and process |",
        "| LoRA | rank 16, alpha 8 |",
        "| begun from | first/step_2 |",
    ):
        assert row in text.split("\n")
    assert "train pointwise --recipe recipe.yaml" in text


def test_what_was_not_used_has_no_row():
    """No adapters, no dev data, no start."""
    _, text = page(LISTWISE)
    assert "| objective | generation |" in text
    assert "| length | 3 epochs, 1 x 1 records a step and process |" in text
    assert not any(name in text for name in ("dev data", "LoRA", "begun from"))

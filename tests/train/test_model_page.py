"""The model page contains the information expected on a model hub and nothing that does not apply to the run."""

from __future__ import annotations

import yaml

from rankllm_core.card import ListwiseCard, PointwiseCard
from rankllm_core.prompts.template import load_template
from rankllm_train.artifacts.checkpoints import reveal_files
from rankllm_train.artifacts.model_page import is_own_page, model_page, write_model_page
from rankllm_train.recipe.recipe import Recipe

LISTWISE = ListwiseCard(template=load_template("rank_zephyr_alpha"))
POINTWISE = PointwiseCard(template=load_template("yes_no"), head="yes-no")


def page(card, **changes):
    """Return the header and the body of the page."""
    values = {"model.name_or_path": "owner/base", "data.train": "train.jsonl"} | changes
    _, header, text = model_page(Recipe().changed(values), card).split("---\n", 2)
    return yaml.safe_load(header), text


def test_a_hub_reads_the_header():
    """The header gives base, library and task; full weights use transformers, adapters use peft."""
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
    """The recipe values on the page, written out by hand."""
    changes = {"method": "pointwise", "objective.name": "kl", "optim.learning_rate": 5e-4, "schedule.max_steps": 40}
    changes |= {"lora.enabled": True, "lora.r": 16, "lora.alpha": 8, "lora.start_from": "first/step_2"}
    _, text = page(POINTWISE, **changes, **{"batch.per_device": 2, "batch.accumulation": 4, "data.eval": "dev.jsonl"})
    for row in (
        "| training data | train.jsonl |",
        "| dev data | dev.jsonl |",
        "| prompt template | yes_no |",
        "| objective | kl |",
        "| learning rate | 0.0005, linear |",
        "| length | up to 40 steps, 2 x 4 records per step and process |",
        "| LoRA | rank 16, alpha 8 |",
        "| started from | first/step_2 |",
    ):
        assert row in text.split("\n")
    assert "train pointwise --recipe recipe.yaml --output-dir" in text


def test_what_was_not_used_has_no_row():
    """No adapters, no dev data and no earlier checkpoint: no rows for them."""
    _, text = page(LISTWISE)
    assert "| objective | generation |" in text
    assert "| length | up to 3 epochs, 1 x 1 records per step and process |" in text
    assert not any(name in text for name in ("dev data", "LoRA", "started from"))


def test_a_base_in_a_folder_is_not_named_to_a_hub(tmp_path):
    """A local path is meaningless on other machines."""
    (tmp_path / "base-1").mkdir()
    header, text = page(LISTWISE, **{"model.name_or_path": str(tmp_path / "base-1")})
    assert "base_model" not in header
    assert "The weights of base-1, fine-tuned" in text
    assert str(tmp_path) not in text


def test_a_readme_of_the_users_stays(tmp_path):
    """The page of an earlier run is replaced; a README with other content is kept."""
    readme = tmp_path / "out" / "README.md"
    for old, is_replaced in (("# My project\n", False), ("---\nlicense: mit\n---\n- rankllm\n", False), (None, True)):
        written = tmp_path / "written"
        written.mkdir()
        write_model_page(written, recipe=Recipe(), card=LISTWISE)
        readme.parent.mkdir(exist_ok=True)
        if old is None:
            write_model_page(readme.parent, recipe=Recipe(), card=POINTWISE)
        else:
            readme.write_text(old, encoding="utf-8")
        reveal_files(written, readme.parent)
        assert not written.exists()
        assert (readme.read_text(encoding="utf-8") != old) == is_replaced
    assert is_own_page(readme)
    assert "# A listwise reranker" in readme.read_text(encoding="utf-8")

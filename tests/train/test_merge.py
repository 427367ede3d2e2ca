"""An adapter merged into its base is the same model, with the same card."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from training_fakes import listwise_record, pointwise_record, save_tiny, write_records  # noqa: E402

from rankllm_core.card import load_card, save_card  # noqa: E402
from rankllm_core.errors import RankLLMError  # noqa: E402
from rankllm_train.api import train  # noqa: E402
from rankllm_train.merge import merge  # noqa: E402
from rankllm_train.recipe import Recipe  # noqa: E402

IDS = torch.tensor([[1, 500, 600, 700, 800]])


@pytest.fixture(scope="module")
def adapters(tmp_path_factory, smollm2_tokenizer):
    """A trained adapter of either method."""
    root = tmp_path_factory.mktemp("merge")
    tiny = save_tiny(root / "tiny", smollm2_tokenizer)
    shared = {
        "model.name_or_path": tiny,
        "model.precision": "fp32",
        "lora.enabled": True,
        "lora.r": 4,
        "optim.learning_rate": 1e-2,
        "schedule.max_steps": 3,
        "checkpoint.every": "none",
        "prompt.context_tokens": 1024,
    }
    lists = write_records(root / "d.jsonl", [listwise_record(i) for i in range(3)])
    groups = write_records(root / "p.jsonl", [pointwise_record(i) for i in range(3)])
    listwise = Recipe().changed(
        shared | {"data.train": lists, "objective.name": "ranking", "checkpoint.output_dir": str(root / "list")}
    )
    pointwise = Recipe(method="pointwise").changed(
        shared | {"data.train": groups, "data.group_size": 4, "checkpoint.output_dir": str(root / "point")}
    )
    return {"listwise": train(listwise).output_dir, "pointwise": train(pointwise).output_dir, "base": tiny}


def load(kind, folder, base=None):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if kind == "listwise":
        model = AutoModelForCausalLM.from_pretrained(base or folder, dtype=torch.float32)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(base or folder, num_labels=1, dtype=torch.float32)
    return (PeftModel.from_pretrained(model, folder) if base else model).eval()


@pytest.mark.parametrize("kind", ["listwise", "pointwise"])
def test_the_merged_model_gives_the_adapters_numbers(adapters, tmp_path, kind):
    """Logits or scores, and unlike the base's."""
    merge(adapters[kind], tmp_path / "merged")
    with torch.no_grad():
        expected = load(kind, adapters[kind], adapters["base"])(input_ids=IDS).logits
        found = load(kind, tmp_path / "merged")(input_ids=IDS).logits
        untrained = load("listwise", adapters["base"])(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    if kind == "listwise":
        assert not torch.allclose(found, untrained, atol=1e-3)


def test_the_card_goes_along_without_its_base(adapters, tmp_path):
    """The merged model is whole; everything else on the card stays."""
    merge(adapters["listwise"], tmp_path / "merged", dtype="bfloat16")
    card = load_card(adapters["listwise"])
    assert load_card(tmp_path / "merged") == replace(card, base_model=None)
    assert card.base_model == adapters["base"]
    assert (tmp_path / "merged" / "tokenizer.json").exists()


def test_an_adapter_without_a_tokenizer_has_its_bases(adapters, tmp_path):
    """As published adapters often come."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors", "rankllm.yaml"):
        shutil.copy(Path(adapters["listwise"]) / name, bare / name)
    merge(bare, tmp_path / "merged")
    merged, base = (
        json.loads((Path(f) / "tokenizer.json").read_text("utf-8")) for f in (tmp_path / "merged", adapters["base"])
    )
    assert merged["model"] == base["model"]


def test_what_cannot_be_merged_is_told(adapters, tmp_path, smollm2_tokenizer):
    """No adapter, no card, another base, a folder in use."""
    with pytest.raises(RankLLMError, match=r"no adapter there \(adapter_config.json is missing\)"):
        merge(adapters["base"], tmp_path / "x")
    with pytest.raises(RankLLMError, match="exists; give the name of a new folder"):
        merge(adapters["listwise"], adapters["base"])
    other = save_tiny(tmp_path / "other", smollm2_tokenizer, hidden=32)
    with pytest.raises(RankLLMError, match="was trained on another base than"):
        merge(adapters["listwise"], tmp_path / "x", base_model=other)
    import shutil

    shutil.copytree(adapters["listwise"], tmp_path / "copy")
    save_card(replace(load_card(tmp_path / "copy"), base_model="some/where-else"), tmp_path / "copy")
    with pytest.raises(RankLLMError, match="the card names the base model 'some/where-else'"):
        merge(tmp_path / "copy", tmp_path / "x")
    (tmp_path / "copy" / "rankllm.yaml").unlink()
    with pytest.raises(RankLLMError, match=r"no card there \(rankllm.yaml is missing\)"):
        merge(tmp_path / "copy", tmp_path / "x")
    assert not (tmp_path / "x").exists()

"""An adapter merged into its base gives the same model with the same card."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tiny_models import change_json  # noqa: E402
from training_fakes import listwise_record, pointwise_record, save_tiny, write_records  # noqa: E402

from rankllm_core.card import load_card, save_card  # noqa: E402
from rankllm_core.errors import RankLLMError  # noqa: E402
from rankllm_train.api import train  # noqa: E402
from rankllm_train.artifacts.merge import merge  # noqa: E402
from rankllm_train.recipe.recipe import Recipe  # noqa: E402

IDS = torch.tensor([[1, 500, 600, 700, 800]])


@pytest.fixture(scope="module")
def adapters(tmp_path_factory, smollm2_tokenizer):
    """A trained adapter of each method."""
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


def save_adapter(folder, adapters, **lora):
    """Save an untrained adapter with non-zero weights and a card on the tiny base, and return the model."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    base = AutoModelForCausalLM.from_pretrained(adapters["base"], dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=2, lora_alpha=4, task_type="CAUSAL_LM", init_lora_weights=False, **lora))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad and "lora_" not in name:
                weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    shutil.copy(Path(adapters["listwise"]) / "rankllm.yaml", folder / "rankllm.yaml")
    return model


@pytest.mark.parametrize("kind", ["listwise", "pointwise"])
def test_the_merged_model_gives_the_adapters_numbers(adapters, tmp_path, kind):
    """Logits or scores equal those of the adapter and differ from those of the base."""
    merge(adapters[kind], tmp_path / "merged")
    with torch.no_grad():
        expected = load(kind, adapters[kind], adapters["base"])(input_ids=IDS).logits
        found = load(kind, tmp_path / "merged")(input_ids=IDS).logits
        untrained = load("listwise", adapters["base"])(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    if kind == "listwise":
        assert not torch.allclose(found, untrained, atol=1e-3)


def test_the_card_goes_along_without_its_base(adapters, tmp_path):
    """The merged model is self-contained; every other card field is kept."""
    merge(adapters["listwise"], tmp_path / "merged", dtype="bfloat16")
    card = load_card(adapters["listwise"])
    assert load_card(tmp_path / "merged") == replace(card, base_model=None)
    assert card.base_model == Path(adapters["base"]).name
    assert (tmp_path / "merged" / "tokenizer.json").exists()


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_the_merged_weights_have_the_bases_precision(adapters, tmp_path, smollm2_tokenizer, dtype):
    """A bfloat16 base keeps two bytes per weight unless another dtype is requested."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    half = AutoModelForCausalLM.from_pretrained(adapters["base"], dtype=torch.bfloat16)
    half.save_pretrained(tmp_path / "tiny")
    merge(adapters["listwise"], tmp_path / "merged", base_model=str(tmp_path / "tiny"), dtype=dtype)
    expected = torch.bfloat16 if dtype == "auto" else torch.float32
    assert {weight.dtype for weight in load_file(tmp_path / "merged" / "model.safetensors").values()} == {expected}
    config = json.loads((tmp_path / "merged" / "config.json").read_text("utf-8"))
    assert config.get("dtype", config.get("torch_dtype")) == str(expected).removeprefix("torch.")


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": ["lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": r".*\.(q_proj)|lm_head"},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "trainable_token_indices": [1, 500]},
    ],
    ids=["head", "embeddings", "pattern", "saved-head", "saved-embeddings", "tokens"],
)
def test_tied_weights_are_untied_where_an_adapter_changes_one_of_them(adapters, tmp_path, lora):
    """The merged model matches the adapter applied to its base, also for adapters written by other programs."""
    model = save_adapter(tmp_path / "adapter", adapters, **lora)
    with torch.no_grad():
        expected = model.eval()(input_ids=IDS).logits
        found = load("listwise", merge(tmp_path / "adapter", tmp_path / "merged"))(input_ids=IDS).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", ["lm_head", "embed_tokens"])
def test_an_adapter_that_keeps_tied_weights_tied_is_refused(adapters, tmp_path, layer):
    """PEFT saves one of the two weights or both, and merging would change the model in either case."""
    save_adapter(tmp_path / "adapter", adapters, target_modules=["q_proj", layer], ensure_weight_tying=True)
    with pytest.raises(RankLLMError, match="with ensure_weight_tying, which cannot be merged"):
        merge(tmp_path / "adapter", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_weights_are_readable_as_the_umask_says(adapters, tmp_path, mask):
    """safetensors files are readable by their owner only, but a server run by another user has to read the model."""
    old = os.umask(mask)
    try:
        merged = merge(adapters["pointwise"], tmp_path / "merged")
    finally:
        os.umask(old)
    assert {oct(p.stat().st_mode & 0o777) for p in merged.iterdir()} == {oct(0o666 & ~mask)}
    assert oct(merged.stat().st_mode & 0o777) == oct(0o777 & ~mask)


def test_a_trained_adapter_is_readable_as_the_umask_says(adapters):
    """Training sets the same permissions on the files it writes."""
    mask = os.umask(0)
    os.umask(mask)
    modes = {p.name: oct(p.stat().st_mode & 0o777) for p in Path(adapters["pointwise"]).iterdir() if p.is_file()}
    assert modes["adapter_model.safetensors"] == oct(0o666 & ~mask)
    assert set(modes.values()) == {oct(0o666 & ~mask)}


def test_the_merged_model_has_a_page_and_its_recipe(adapters, tmp_path):
    """They are those of the adapter, adapted to a full model."""
    page = (merge(adapters["listwise"], tmp_path / "merged") / "README.md").read_text("utf-8")
    assert "The weights of tiny with LoRA adapters merged in, fine-tuned" in page
    assert "library_name: transformers" in page
    assert "--base-model" not in page
    assert (tmp_path / "merged" / "recipe.yaml").read_text("utf-8") == (
        Path(adapters["listwise"]) / "recipe.yaml"
    ).read_text("utf-8")


def test_a_base_that_is_not_on_this_machine_is_told_apart_from_a_wrong_name(adapters, tmp_path):
    """The adapter names the folder of the base it was trained on, which does not exist on other machines."""
    copy = tmp_path / "copy"
    shutil.copytree(adapters["listwise"], copy)
    change_json(copy / "adapter_config.json", base_model_name_or_path=f"/elsewhere/{Path(adapters['base']).name}")
    with pytest.raises(RankLLMError, match=r"its base model /elsewhere/tiny is not on this machine; .* --base-model"):
        merge(copy, tmp_path / "x")
    assert merge(copy, tmp_path / "x", base_model=adapters["base"]) == tmp_path / "x"


def test_an_adapter_without_a_tokenizer_has_its_bases(adapters, tmp_path):
    """Published adapters often contain no tokenizer."""
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
    """Not an adapter, no card, a different base, an output folder in use."""
    with pytest.raises(RankLLMError, match=r"expected a LoRA adapter, but adapter_config.json is missing"):
        merge(adapters["base"], tmp_path / "x")
    with pytest.raises(RankLLMError, match="exists; give the name of a new folder"):
        merge(adapters["listwise"], adapters["base"])
    other = save_tiny(tmp_path / "other", smollm2_tokenizer, hidden=32)
    with pytest.raises(RankLLMError, match="was trained on a different base model than"):
        merge(adapters["listwise"], tmp_path / "x", base_model=other)
    import shutil

    shutil.copytree(adapters["listwise"], tmp_path / "copy")
    save_card(replace(load_card(tmp_path / "copy"), base_model="some/where-else"), tmp_path / "copy")
    with pytest.raises(RankLLMError, match="the card names the base model 'some/where-else'"):
        merge(tmp_path / "copy", tmp_path / "x")
    (tmp_path / "copy" / "rankllm.yaml").unlink()
    with pytest.raises(RankLLMError, match=r"rankllm.yaml is missing, so the prompt format is unknown"):
        merge(tmp_path / "copy", tmp_path / "x")
    assert not (tmp_path / "x").exists()

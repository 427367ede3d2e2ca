"""Training continues from a trained adapter, or the error says why it cannot."""

from __future__ import annotations

import shutil

import pytest

torch = pytest.importorskip("torch")

from tiny_models import change_json  # noqa: E402
from training_fakes import save_tiny  # noqa: E402

from rankllm_core.errors import ConfigError  # noqa: E402
from rankllm_train.models.adapters import _model_name  # noqa: E402
from rankllm_train.models.loading import load_model  # noqa: E402
from rankllm_train.recipe.sections import LoraSection, ModelSection  # noqa: E402

LORA = {"enabled": True, "r": 4, "alpha": 8, "dropout": 0.0}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, smollm2_tokenizer):
    return save_tiny(tmp_path_factory.mktemp("tiny"), smollm2_tokenizer)


def load(base, *, kind="causal", **lora):
    section = ModelSection(name_or_path=str(base), precision="fp32")
    return load_model(section, kind=kind, lora=LoraSection(**{**LORA, **lora}), seed=1)


@pytest.fixture(scope="module", params=["causal", "sequence-classification"])
def trained(request, tiny, tmp_path_factory):
    """Return an adapter whose weights have changed since initialization: folder, kind and weights."""
    folder = tmp_path_factory.mktemp("adapter")
    model = load(tiny, kind=request.param)
    with torch.no_grad():
        for number, weight in enumerate(trainable(model).values()):
            weight.fill_(0.01 * (number + 1))
    model.save_pretrained(folder)
    return folder, request.param, {name: weight.detach().clone() for name, weight in trainable(model).items()}


def trainable(model):
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def test_its_weights_are_those_of_the_adapter(tiny, trained):
    """All weights match, including a score layer, and are trained further."""
    folder, kind, weights = trained
    again = trainable(load(tiny, kind=kind, start_from=str(folder)))
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    assert not all(torch.equal(a, weights[name]) for name, a in trainable(load(tiny, kind=kind)).items())


def test_layers_that_it_does_not_have_begin_idle(tiny, trained):
    """Adapters on the keys are added with B = 0, so that the model's output is the adapter's."""
    folder, kind, weights = trained
    targets = (*LoraSection().target_modules, "k_proj")
    wider = trainable(load(tiny, kind=kind, start_from=str(folder), target_modules=targets))
    assert all(torch.equal(wider[name], weights[name]) for name in weights)
    added = {name: weight for name, weight in wider.items() if name not in weights}
    assert len(added) == 4  # A and B of two layers
    assert all("k_proj" in name for name in added)
    assert all(not weight.any() for name, weight in added.items() if "lora_B" in name)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"r": 2}, r"has lora\.r 4, but the recipe has 2; set lora\.r"),
        ({"alpha": 16}, r"has lora\.alpha 8, but the recipe has 16; set lora\.alpha"),
        ({"target_modules": ("q_proj",)}, r"adapts layers that the recipe does not.*add them to lora\.target_modules"),
    ],
)
def test_an_adapter_of_another_shape_is_refused(tiny, trained, lora, message):
    """The error names the difference."""
    folder, kind, _ = trained
    with pytest.raises(ConfigError, match=message):
        load(tiny, kind=kind, start_from=str(folder), **lora)


def test_an_adapter_of_another_base_is_refused(trained, tmp_path, smollm2_tokenizer):
    """Detected by the shapes of its weights if nothing names the base."""
    _, kind, _ = trained
    folder = shutil.copytree(trained[0], tmp_path / "adapter")
    change_json(folder / "adapter_config.json", base_model_name_or_path=None)
    wider = save_tiny(tmp_path / "wider", smollm2_tokenizer, hidden=64)
    with pytest.raises(ConfigError, match="was trained on a different base model"):
        load(wider, kind=kind, start_from=str(folder))


def test_a_folder_without_an_adapter_is_named(tiny, tmp_path):
    """An option without effect is named too."""
    with pytest.raises(ConfigError, match=r"expected a LoRA adapter, but adapter_config\.json is missing"):
        load(tiny, start_from=str(tmp_path))
    with pytest.raises(ConfigError, match=r"lora\.start_from: has no effect without lora\.enabled"):
        LoraSection(start_from=str(tmp_path))


def test_a_yes_no_adapter_begins_one_with_a_score_layer(tiny, tmp_path):
    """Its layers are kept and the score layer is new; in the other direction, the score layer is dropped."""
    for ours, theirs in (("sequence-classification", "causal"), ("causal", "sequence-classification")):
        folder = tmp_path / theirs
        begun = load(tiny, kind=theirs)
        with torch.no_grad():
            for weight in trainable(begun).values():
                weight.fill_(0.25)
        begun.save_pretrained(folder)
        fresh = trainable(load(tiny, kind=ours))
        again = trainable(load(tiny, kind=ours, start_from=str(folder)))
        assert all((weight == 0.25).all() for name, weight in again.items() if "lora_" in name)
        assert all(torch.equal(weight, fresh[name]) for name, weight in again.items() if ".score." in name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("adapter_config.json", "{", r"adapter_config\.json is not JSON"),
        ("adapter_config.json", "[" * 100_000, r"adapter_config\.json is not JSON"),
        ("adapter_config.json", '{"peft_type": "IA3"}', "peft_type: expected LORA, found 'IA3'"),
        ("adapter_config.json", None, "expected a LoRA adapter"),
        ("adapter_model.safetensors", None, r"adapter_model\.safetensors is missing"),
        ("adapter_model.safetensors", "torn", "its weights cannot be read"),
    ],
)
def test_a_damaged_adapter_is_named(tiny, tmp_path, name, content, message):
    """The one-line error says what is wrong."""
    load(tiny).save_pretrained(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        load(tiny, start_from=str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"torn", b"PK\x03\x04", b"\x80\x02c", b"\x80\x04K\x01."])
def test_damaged_pickled_weights_are_named(tiny, tmp_path, content):
    """Whatever the unpickler raises; only tensors are loaded."""
    load(tiny).save_pretrained(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    (tmp_path / "adapter_model.bin").write_bytes(content)
    with pytest.raises(ConfigError, match="its weights cannot be read") as caught:
        load(tiny, start_from=str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("use_rslora", True, "has use_rslora True, which recipes do not support"),
        ("alpha_pattern", {"q_proj": 1}, "has alpha_pattern"),
        ("base_model_name_or_path", "/models/another", "was trained on /models/another, but the recipe names"),
    ],
)
def test_an_adapter_of_another_scale_or_base_is_refused(tiny, tmp_path, key, value, message):
    """Detected by its configuration."""
    load(tiny).save_pretrained(tmp_path)
    change_json(tmp_path / "adapter_config.json", **{key: value})
    with pytest.raises(ConfigError, match=message):
        load(tiny, start_from=str(tmp_path))


def test_a_snapshot_of_the_hub_has_its_models_name():
    """An adapter that uses the model's hub name matches it."""
    assert _model_name("/cache/models--owner--tiny/snapshots/0123abc") == _model_name("owner/tiny") == "tiny"

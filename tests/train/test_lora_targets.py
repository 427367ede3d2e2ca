"""LoRA adapters are put on all the named layers, or training does not start."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

from tiny_models import save_causal  # noqa: E402

from rankllm_core.errors import ConfigError  # noqa: E402
from rankllm_train.models.loading import load_model  # noqa: E402
from rankllm_train.recipe.recipe import Recipe  # noqa: E402
from rankllm_train.recipe.sections import LoraSection, ModelSection  # noqa: E402


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def model_folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    save_causal(folder, tie_word_embeddings=request.param)
    return str(folder), request.param


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("untied")
    save_causal(folder, tie_word_embeddings=False)
    return str(folder)


def adapted(folder, *names, kind="causal"):
    """Return the paths of the adapted layers."""
    lora = LoraSection(enabled=True, r=2, target_modules=names)
    model = load_model(ModelSection(name_or_path=folder, precision="fp32"), kind=kind, lora=lora, seed=0)
    weights = {name for name, weight in model.named_parameters() if "lora_A" in name and weight.requires_grad}
    return {name.removeprefix("base_model.model.").split(".lora_A")[0] for name in weights}


@pytest.mark.parametrize(
    ("names", "n_adapted"),
    [
        (("q_proj",), 2),
        (("self_attn.q_proj",), 2),
        (("layers.1.self_attn.q_proj",), 1),
        (("model.layers.0.mlp.up_proj", "k_proj"), 3),
        (("all-linear",), 14),
    ],
)
def test_every_name_is_an_adapted_layer(untied, names, n_adapted):
    """By the end of its path, after a dot; two layers of the model have one each."""
    found = adapted(untied, *names)
    assert len(found) == n_adapted
    assert all(name == "all-linear" or any(path.endswith(name) for path in found) for name in names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("q_proj", "w_pack"), "'w_pack' is not a layer of this model; known: q_proj, k_proj, v_proj"),
        (("q_proj", "v_prj"), "'v_prj' is not a layer of this model; did you mean 'v_proj'?"),
        (("proj",), "'proj' is not a layer of this model"),
        ((r".*_proj",), r"'.*_proj' is not a layer of this model"),
        (("Q_PROJ",), "'Q_PROJ' is not a layer of this model"),
        (("score", "q_proj"), "'score' is not a layer of this model"),
        (("all-linear", "lm_head"), "all-linear means every linear layer; use it alone, or give names"),
        (
            ("self_attn",),
            "lora.target_modules: 'self_attn' is not a linear layer (model.layers.0.self_attn is a LlamaAttention); "
            "use q_proj, k_proj, v_proj, o_proj",
        ),
        (("q_proj", "mlp"), "'mlp' is not a linear layer (model.layers.0.mlp is a LlamaMLP); use gate_proj, up_proj,"),
        (("layers",), "'layers' is not a linear layer (model.layers is a ModuleList); use q_proj"),
        (("0",), "'0' is not a linear layer (model.layers.0 is a LlamaDecoderLayer); use q_proj"),
        (("model",), "'model' is not a linear layer (model is a LlamaModel); use q_proj"),
        (("norm",), "'norm' is not a linear layer (model.norm is a LlamaRMSNorm); known: q_proj"),
    ],
)
def test_a_name_that_no_layer_has_is_refused(untied, names, message):
    """Even where others match: PEFT would record it as trained."""
    with pytest.raises(ConfigError) as caught:
        adapted(untied, *names)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["lm_head", "embed_tokens", "model.embed_tokens"])
def test_tied_weights_take_no_adapter(model_folder, name):
    """Head and embeddings are one matrix: merging an adapter on one would change both."""
    folder, is_tied = model_folder
    if not is_tied:
        assert len(adapted(folder, name, "q_proj")) >= 2
        return
    with pytest.raises(ConfigError) as caught:
        adapted(folder, "q_proj", name)
    other = "model.embed_tokens" if name == "lm_head" else "lm_head"
    assert f"lora.target_modules: {name!r} shares its weights with {other!r}" in str(caught.value)


def test_a_score_layer_is_not_adapted_beside_its_training(untied):
    """It is trained in full; PEFT would silently drop its adapter."""
    with pytest.raises(ConfigError, match="'score' is already trained in full next to the adapters; leave it out"):
        adapted(untied, "q_proj", "score", kind="sequence-classification")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("q_proj,q_proj", "'q_proj' is given twice"),
        ("q_proj, v_proj ,q_proj", "'q_proj' is given twice"),
        ("q_proj,,v_proj", "expected layer names, found ''"),
        ("q_proj,", "expected layer names, found ''"),
        (" ", "expected at least one layer name, found none"),
        ("", "expected at least one layer name, found none"),
        ("q_proj v_proj", "expected layer names, found 'q_proj v_proj'"),
        (["q_proj", ""], "expected layer names, found ''"),
    ],
)
def test_a_list_of_names_has_each_once(given, message):
    """On the command line and in YAML; rejected before anything is loaded."""
    with pytest.raises(ConfigError) as caught:
        Recipe().changed({"lora.target_modules": given})
    assert message in str(caught.value), json.dumps(given)
    assert Recipe().changed({"lora.target_modules": " q_proj , v_proj"}).lora.target_modules == ("q_proj", "v_proj")

"""Adapters and their bases: finding or requiring the base, tied weights, and which files are downloaded."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

from tiny_models import change_json, save_causal  # noqa: E402

from rankllm_core.errors import RankLLMError  # noqa: E402
from rankllm_infer.checkpoints import hub  # noqa: E402
from rankllm_infer.checkpoints.hub import _not_needed  # noqa: E402
from rankllm_infer.checkpoints.model_files import find_model, load_tokenizer  # noqa: E402
from rankllm_infer.engines.transformers.batches import TransformersSettings  # noqa: E402
from rankllm_infer.engines.transformers.loading import load_model  # noqa: E402

IDS = torch.tensor([[1, 500, 600, 700, 800]])


@pytest.fixture(autouse=True)
def _nothing_remembered():
    hub._from_hub.cache_clear()
    yield
    hub._from_hub.cache_clear()


@pytest.fixture(scope="module")
def tied(tmp_path_factory, smollm2_tokenizer):
    folder = tmp_path_factory.mktemp("tied")
    save_causal(folder, smollm2_tokenizer, tie_word_embeddings=True)
    return folder


def save_lora(folder, base, **lora):
    """Save an adapter for a base. Return the logits of the combination."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, task_type="CAUSAL_LM", init_lora_weights=False, **lora))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "trainable_tokens" in name:
                weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": ["lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"], "trainable_token_indices": [1, 500]},
    ],
    ids=["head", "embeddings", "saved-head", "tokens"],
)
def test_an_adapter_on_one_of_two_tied_layers_changes_that_one(tied, tmp_path, lora):
    """Head and embeddings share one matrix in the base: merging the adapter would change both."""
    expected = save_lora(tmp_path / "adapter", tied, **lora)
    loaded = load_model(
        find_model(str(tmp_path / "adapter")), "causal", TransformersSettings(dtype="float32", device="cpu")
    )
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(input_ids=IDS).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", ["lm_head", "embed_tokens"])
def test_an_adapter_that_keeps_tied_layers_tied_is_refused(tied, tmp_path, layer):
    """PEFT saves one or both of them, and merging gives a different model in either case."""
    save_lora(tmp_path / "adapter", tied, target_modules=["q_proj", layer], ensure_weight_tying=True)
    with pytest.raises(RankLLMError, match="with ensure_weight_tying, which cannot be merged"):
        load_model(find_model(str(tmp_path / "adapter")), "causal", TransformersSettings(dtype="float32", device="cpu"))


@pytest.mark.parametrize("named", ["/models/of/another/machine/base", "./base", "base"])
def test_a_base_that_is_elsewhere_is_asked_for(tied, tmp_path, named):
    """The message says that it is an adapter's base and which option gives its location."""
    save_lora(tmp_path / "adapter", tied, target_modules=["q_proj"])
    change_json(tmp_path / "adapter" / "adapter_config.json", base_model_name_or_path=named)
    with pytest.raises(RankLLMError) as caught:
        find_model(str(tmp_path / "adapter"))
    message = str(caught.value)
    assert message.startswith(
        f"{tmp_path / 'adapter'}: is an adapter, and its base model cannot be loaded ({named}: no "
    )
    assert message.endswith("with --base-model")
    assert find_model(str(tmp_path / "adapter"), str(tied)).base.path == tied
    with pytest.raises(RankLLMError, match=r"^\./gone: no such model folder"):
        find_model(str(tmp_path / "adapter"), "./gone")


def test_weights_are_fetched_once():
    """Mistral's repositories contain them twice: for transformers, and consolidated for Mistral's own code."""
    from fnmatch import fnmatch

    def fetched(*files):
        return [file for file in files if not any(fnmatch(file, pattern) for pattern in _not_needed(files))]

    shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    small = ("config.json", "model.safetensors.index.json", "tokenizer.json", "tokenizer.model.v3")
    assert fetched(*small, *shards, "consolidated.safetensors", "pytorch_model.bin") == [*small, *shards]
    assert fetched("model.safetensors", "consolidated-00001-of-00002.safetensors") == ["model.safetensors"]
    assert fetched("config.json", "pytorch_model.bin", "model.h5") == ["config.json", "pytorch_model.bin"]
    assert "adapter_model.safetensors" in fetched("adapter_model.safetensors", "adapter_config.json")


def test_a_tekken_file_does_not_replace_the_tokenizer(tmp_path, smollm2_tokenizer, monkeypatch):
    """With mistral_common installed, transformers would prefer it."""
    as_if_mistral_common_were_installed(monkeypatch)
    folder = tmp_path / "mistral"
    smollm2_tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "mistral"}), encoding="utf-8")
    (folder / "tekken.json").write_text("{}", encoding="utf-8")
    change_json(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")
    assert load_tokenizer(folder).backend_tokenizer.get_vocab_size() == len(smollm2_tokenizer)


def as_if_mistral_common_were_installed(monkeypatch):
    """transformers' tables as they are with that package installed."""
    tokenization = pytest.importorskip("transformers.models.auto.tokenization_auto")
    monkeypatch.setitem(tokenization.TOKENIZER_MAPPING_NAMES, "mistral", "MistralCommonBackend")
    mistral = pytest.importorskip("transformers.integrations.mistral.tokenizer")
    monkeypatch.setattr(mistral, "resolve_mistral_format", lambda *arguments, **options: (True, None))

"""Quantized checkpoints with the libraries they need; scripts/test-quantized installs these."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

import tiny_models
import torch
from quantized_models import (
    CLASSIFIER,
    SAVE,
    channel_fp8,
    compressed_tensors,
    engine_scores,
    load,
    logits,
    packed_int4,
    quantize,
    with_settings,
)


@pytest.mark.parametrize("kind", SAVE)
@pytest.mark.parametrize(
    ("quantize_weight", "settings"),
    [
        (channel_fp8, compressed_tensors("float-quantized", kind="float", bits=8)),
        (packed_int4, compressed_tensors("pack-quantized", kind="int", bits=4)),
    ],
    ids=["fp8", "int4"],
)
def test_compressed_tensors_are_dequantized(tmp_path, smollm2_tokenizer, kind, quantize_weight, settings):
    """A score head not listed among the exceptions is read as stored."""
    pytest.importorskip("compressed_tensors")
    model = quantize(tmp_path, SAVE[kind](tmp_path, smollm2_tokenizer), quantize_weight, settings)
    loaded = load(tmp_path, kind)
    assert torch.allclose(logits(loaded.model), logits(model), atol=1e-5)
    assert "(compressed-tensors) are dequantized to float32" in loaded.notes[0]


def save_bitsandbytes(folder, source, kind, settings):
    """Quantize a saved model with bitsandbytes. Returns its own model as the reference."""
    pytest.importorskip("bitsandbytes")
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig

    owner = AutoModelForCausalLM if kind == "causal" else AutoModelForSequenceClassification
    config = BitsAndBytesConfig(**settings)
    model = owner.from_pretrained(source, quantization_config=config, dtype=torch.float32, device_map={"": "cpu"})
    model.save_pretrained(folder)
    return model


BITS = {
    4: {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32"},
    8: {"load_in_8bit": True},
}


@pytest.mark.parametrize(
    ("kind", "bits", "skipped"),
    [("causal", 4, None), ("causal", 8, ["lm_head"]), (CLASSIFIER, 4, ["lm_head"]), (CLASSIFIER, 8, ["lm_head"])],
)
def test_bitsandbytes_stays_quantized_but_for_its_heads(tmp_path, smollm2_tokenizer, kind, bits, skipped):
    """An exception list made for a language model does not name the score head, which is stored unquantized."""
    SAVE[kind](tmp_path / "full", smollm2_tokenizer, hidden=64)
    model = save_bitsandbytes(tmp_path / "small", tmp_path / "full", kind, BITS[bits])
    smollm2_tokenizer.save_pretrained(tmp_path / "small")
    settings = json.loads((tmp_path / "small" / "config.json").read_text())["quantization_config"]
    with_settings(tmp_path / "small", **(settings | {"llm_int8_skip_modules": skipped}))
    loaded = load(tmp_path / "small", kind)
    layer = loaded.model.model.layers[0].mlp.up_proj
    assert type(layer).__name__ == {4: "Linear4bit", 8: "Linear8bitLt"}[bits]
    assert torch.allclose(logits(loaded.model), logits(model), atol=1e-4)
    if kind == CLASSIFIER:
        assert engine_scores(loaded) == pytest.approx(logits(model).flatten().tolist(), abs=1e-4)
    inside = ", which compute in float32" if bits == 4 else ""
    assert loaded.notes == (
        f"--dtype float32 has no effect on the quantized layers (bitsandbytes){inside}, only on the others",
    )


def test_an_adapter_is_merged_into_bitsandbytes_layers_in_full(tmp_path, smollm2_tokenizer):
    """Merged into four bits it would be rounded away: the scores are those of the adapter on dequantized weights."""
    functional = pytest.importorskip("bitsandbytes.functional")
    full = tiny_models.save_causal(tmp_path / "full", smollm2_tokenizer, hidden=64)
    small = save_bitsandbytes(tmp_path / "small", tmp_path / "full", "causal", BITS[4])
    smollm2_tokenizer.save_pretrained(tmp_path / "small")
    quantized_layers = {n: m for n, m in small.named_modules() if type(m).__name__ == "Linear4bit"}
    assert len(quantized_layers) == 14
    with torch.no_grad():
        for name, layer in quantized_layers.items():
            meant = functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            full.get_submodule(name).weight.copy_(meant)
    full.save_pretrained(tmp_path / "meant")
    adapted = tiny_models.save_adapter(tmp_path / "adapter", tmp_path / "meant", task="CAUSAL_LM")
    loaded = load(tmp_path / "adapter", "causal", base_model=str(tmp_path / "small"))
    assert torch.allclose(logits(loaded.model), logits(adapted), atol=1e-4)
    note = "quantized weights (bitsandbytes) are dequantized to float32 to merge the adapter"
    assert loaded.notes == (note,)


def test_torchao_stays_quantized(tmp_path, smollm2_tokenizer):
    """Eight-bit integers in torchao's own tensors."""
    torchao = pytest.importorskip("torchao.quantization")
    from transformers import AutoModelForSequenceClassification, TorchAoConfig

    tiny_models.save_classifier(tmp_path / "full", smollm2_tokenizer, hidden=64)
    config = TorchAoConfig(torchao.Int8WeightOnlyConfig(version=2))
    model = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "full", quantization_config=config, dtype=torch.float32, device_map={"": "cpu"}
    )
    model.save_pretrained(tmp_path / "small")
    smollm2_tokenizer.save_pretrained(tmp_path / "small")
    assert torch.equal(logits(load(tmp_path / "small", CLASSIFIER).model), logits(model))

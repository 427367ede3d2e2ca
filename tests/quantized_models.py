"""Tiny models whose weights a test quantizes by hand, in published formats, without a library of quantization."""

from __future__ import annotations

import torch
from safetensors.torch import load_file, save_file
from tiny_models import change_json, save_causal, save_classifier

from rankllm_infer.checkpoints.model_files import find_model
from rankllm_infer.engines.base import Prompt
from rankllm_infer.engines.transformers.batches import TransformersSettings
from rankllm_infer.engines.transformers.engine import TransformersEngine
from rankllm_infer.engines.transformers.loading import load_model

MXFP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
"""What four bits stand for in the OCP specification of microscaling formats: sign, two of exponent, one of mantissa."""
LARGEST_FP8 = 448.0
"""The largest number of float8_e4m3fn."""


def quantize(folder, model, quantize_weight, settings, *, stored=torch.float32, only=("_proj.weight",)):
    """Quantize the layers of a saved model in place.

    model: as it was saved; it is given the dequantized weights, and returned. quantize_weight: weight -> (tensors to
    store, by the ending of their names, and the weight that they stand for). settings: `quantization_config`.
    stored: the type of all other weights. only: how the names of the layers end.
    """
    file = folder / "model.safetensors"
    written, meant = {}, {}
    for name, weight in load_file(file).items():
        if name.endswith(only):
            tensors, meant[name] = quantize_weight(weight)
            written |= {name.removesuffix("weight") + ending: tensor for ending, tensor in tensors.items()}
        else:
            written[name] = weight.to(stored)
            meant[name] = written[name].float()
    save_file({name: tensor.contiguous() for name, tensor in written.items()}, file, metadata={"format": "pt"})
    change_json(folder / "config.json", quantization_config=settings)
    model.load_state_dict(meant, strict=False)
    return model.eval()


def block_fp8(weight):
    """One float8 scale for a block, which is the whole of a weight here: `quant_method: fp8`, as DeepSeek's."""
    scale = (weight.abs().amax() / LARGEST_FP8).reshape(1, 1)
    small = (weight / scale).to(torch.float8_e4m3fn)
    return {"weight": small, "weight_scale_inv": scale}, small.float() * scale


FP8 = {
    "quant_method": "fp8",
    "activation_scheme": "dynamic",
    "weight_block_size": [128, 128],
    "modules_to_not_convert": ["lm_head"],
}


def channel_fp8(weight):
    """A float8 scale for each row: compressed-tensors' `float-quantized`."""
    scale = weight.abs().amax(1, keepdim=True) / LARGEST_FP8
    small = (weight / scale).to(torch.float8_e4m3fn)
    return {"weight": small, "weight_scale": scale}, small.float() * scale


def packed_int4(weight):
    """Eight integers from -8 to 7 in 32 bits, the first lowest, each stored plus 8: `pack-quantized`."""
    scale = weight.abs().amax(1, keepdim=True) / 7
    small = (weight / scale).round().clamp(-8, 7)
    nibbles = (small + 8).long().reshape(len(weight), -1, 8) << (4 * torch.arange(8))
    packed = nibbles.sum(-1)
    packed = torch.where(packed >= 1 << 31, packed - (1 << 32), packed).to(torch.int32)
    shape = torch.tensor(weight.shape)
    return {"weight_packed": packed, "weight_scale": scale, "weight_shape": shape}, small * scale


def expert_mxfp4(weights):
    """Four bits a number, two in a byte, and an exponent of two for 32 of them; `quant_method: mxfp4`, as gpt-oss's.

    weights: those of all experts (experts, inputs, outputs); stored the other way round.
    """
    blocks = weights.transpose(1, 2).unflatten(2, (-1, 32))
    exponents = (blocks.abs().amax(-1) / MXFP4[7]).log2().ceil()
    unit = torch.exp2(exponents)[..., None]
    nibbles = ((blocks / unit)[..., None] - MXFP4).abs().argmin(-1)
    packed = (nibbles[..., 0::2] | nibbles[..., 1::2] << 4).to(torch.uint8)
    meant = (MXFP4[nibbles] * unit).flatten(2).transpose(1, 2)
    return {"_blocks": packed, "_scales": (exponents + 127).to(torch.uint8)}, meant.contiguous()


def compressed_tensors(form, *, kind, bits):
    """Settings of compressed-tensors: one scheme for all linear layers but the language model's head."""
    weights = {"num_bits": bits, "type": kind, "strategy": "channel", "symmetric": True, "dynamic": False}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }


IDS = (1, 500, 600, 700, 800)
CLASSIFIER = "sequence-classification"
SAVE = {"causal": save_causal, CLASSIFIER: save_classifier}
"""How a model is read -> what saves such a model."""


def logits(model):
    """What the model itself says of a few tokens."""
    with torch.inference_mode():
        return model(input_ids=torch.tensor([IDS])).logits.float()


def load(folder, kind, dtype="float32", base_model=None):
    """The model on the CPU, as `rerank` loads it."""
    return load_model(find_model(str(folder), base_model), kind, TransformersSettings(dtype=dtype, device="cpu"))


def engine_scores(loaded):
    """The score that the engine reads off a score head, for the same tokens."""
    engine = TransformersEngine(loaded)
    engine.submit(0, Prompt(text="", read="head", token_ids=IDS))
    ((_, answer),) = engine.collect()
    return list(answer.scores)


def with_settings(folder, **settings):
    """Write `quantization_config` into a model's config.json."""
    change_json(folder / "config.json", quantization_config=settings)
    return folder

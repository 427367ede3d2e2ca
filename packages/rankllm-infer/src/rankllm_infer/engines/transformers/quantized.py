"""Quantized weights in transformers: requirements, formats that are dequantized on loading, and heads kept exact.

Formats that transformers would run with kernels downloaded from the hub (FP8, MXFP4) are dequantized, as are those that
it decompresses before the first forward pass anyway (compressed-tensors). The others stay quantized.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from rankllm_core.checkpoints.weights import TensorInfo
from rankllm_core.errors import ContractError
from rankllm_core.nn.model_parts import quiet_transformers, readable_load
from rankllm_infer.checkpoints.model_files import ModelFiles
from rankllm_infer.checkpoints.quantization import PACKAGES, Quantization, check_packages, quantization_of
from rankllm_infer.engines.base import ModelKind

_DEQUANTIZED = ("compressed-tensors", "fp8", "mxfp4", "mxfp8")
_DEQUANTIZED_TO_MERGE = "bitsandbytes"
"""Merging an adapter into 4-bit or 8-bit weights would round it away."""
_KEPT_MODULES = {
    "awq": "modules_to_not_convert",
    "bitsandbytes": "llm_int8_skip_modules",
    "torchao": "modules_to_not_convert",
}
"""Methods whose weights stay quantized -> setting that lists the unquantized modules."""
_HEADS = ("score", "lm_head")
_FLOATS = ("F16", "BF16", "F32", "F64")


def check_quantization(files: ModelFiles, device: torch.device) -> Quantization | None:
    """Return how a model's weights are quantized, after checking that they can be loaded; None if they are not
    quantized.

    Only reads small files. Raises MissingPackageError for a missing package, ContractError for a method, or an adapter
    of a base, that cannot be loaded here, RankLLMError for a device that lacks required features.
    """
    found, name = quantization_of(files.base), files.base.name
    if found is None:
        return None
    if found.method not in PACKAGES:
        raise ContractError(
            f"{name}: its weights are quantized with a method that rankllm does not support with transformers "
            f"({found.method!r:.60}; supported: {', '.join(PACKAGES)}); use --engine vllm or unquantized weights"
        )
    check_packages(name, found.method, found.packages)
    if files.own.adapter is not None and found.method not in (*_DEQUANTIZED, _DEQUANTIZED_TO_MERGE):
        raise ContractError(
            f"{files.own.name}: an adapter cannot be merged into its base {name}, whose weights are quantized "
            f"({found.method}); specify the unquantized base with --base-model"
        )
    if found.method == "compressed-tensors":
        _check_one_scheme(name, found)
    _check_environment(name, found, device)
    return found


def _check_one_scheme(name: str, found: Quantization) -> None:
    """Raise ContractError for mixed schemes: transformers 5.23 dequantizes all layers by the scheme of the first
    group."""
    groups = found.settings.get("config_groups")
    schemes = [
        (group.get("format"), group.get("weights")) if isinstance(group, Mapping) else None
        for group in (groups.values() if isinstance(groups, Mapping) else ())
    ]
    if any(scheme != schemes[0] for scheme in schemes):
        raise ContractError(
            f"{name}: its layers use {len(schemes)} different quantization schemes (config_groups), which transformers "
            "cannot dequantize; use --engine vllm"
        )


def _check_environment(name: str, found: Quantization, device: torch.device) -> None:
    """Run transformers' own checks of packages, versions and devices."""
    from transformers.quantizers import auto

    problem = f"its quantized weights ({found.method}) cannot be loaded here"
    with readable_load(name, problem=problem), quiet_transformers(hide_warnings=True):
        quantizer = auto.AutoHfQuantizer.from_config(_settings(found), pre_quantized=True)
        quantizer.validate_environment(device_map={"": device})


def _settings(found: Quantization) -> dict[str, object]:
    dequantize = {"dequantize": True} if found.method in _DEQUANTIZED else {}
    return {**found.settings, **dequantize}


def quantized_options(
    found: Quantization,
    files: ModelFiles,
    kind: ModelKind,
    *,
    options: Mapping[str, Any],
    device: torch.device,
    held: Mapping[str, TensorInfo],
) -> dict[str, Any]:
    """Return options of `from_pretrained` for quantized weights.

    options: those for unquantized weights. held: the checkpoint's tensors. A head that is unquantized in the
    checkpoint, or missing from it, is not quantized on loading, even if the list of excluded modules does not name it:
    a list made for a language model does not include a score head.
    """
    from transformers import AutoConfig

    labels = {"num_labels": 1} if kind == "sequence-classification" else {}
    trusted = options["trust_remote_code"]
    with readable_load(files.base.path):
        config = AutoConfig.from_pretrained(files.base.path, trust_remote_code=trusted, **labels)
    settings, key = _settings(found), _KEPT_MODULES.get(found.method, "")
    listed = settings.get(key)
    if isinstance(listed, list):
        settings[key] = [*listed, *(head for head in _HEADS if head not in listed and _is_exact(held, head))]
    config.quantization_config = settings
    if found.method == "bitsandbytes":
        # bitsandbytes logs each product that it computes in float16.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    changed: dict[str, Any] = {**options, "config": config}
    if found.method not in _DEQUANTIZED:
        changed.setdefault("device_map", {"": device})
    if found.method == "awq" and device.type == "cuda":
        changed["dtype"] = torch.float16  # AWQ's GPU kernels only compute in float16
    return changed


def _is_exact(held: Mapping[str, TensorInfo], head: str) -> bool:
    info = held.get(f"{head}.weight")
    return info is None or info.dtype in _FLOATS


def settle_quantized(model: Any, found: Quantization, *, dtype: torch.dtype, files: ModelFiles) -> Any:
    """Return the loaded model, dequantized where necessary and then with a uniform dtype.

    Raises ContractError if its score head is quantized.
    """
    if files.own.adapter is not None and found.method == _DEQUANTIZED_TO_MERGE:
        with readable_load(files.base.path, problem="its weights cannot be dequantized"):
            model = model.dequantize(dtype)
        _set_dtype(model, dtype)
    elif found.method in _DEQUANTIZED:
        # Unquantized weights keep their stored dtype.
        _set_dtype(model, dtype)
    head = getattr(model, "score", None)
    if head is not None and type(head) is not torch.nn.Linear:
        raise ContractError(
            f"{files.base.path}: its score head is quantized ({type(head).__name__}), so its scores are not the "
            "trained ones; use a checkpoint with an unquantized head"
        )
    return model


def _set_dtype(model: Any, dtype: torch.dtype) -> None:
    """Convert parameters, except those that the model keeps in float32; buffers stay in float32."""
    kept = (*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ()))
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not (parameter.dtype == torch.float32 and any(k in name for k in kept)):
            parameter.data = parameter.data.to(dtype)


def quantization_notes(found: Quantization, files: ModelFiles, *, asked: str, dtype: torch.dtype) -> tuple[str, ...]:
    """Return notes for the user: what the weights were converted to, and where `--dtype` has no effect.

    asked: value of --dtype. dtype: dtype the model runs in.
    """
    runs_in = str(dtype).removeprefix("torch.")
    if found.method in _DEQUANTIZED:
        return (
            f"quantized weights ({found.method}) are dequantized to {runs_in} on loading and use as much memory as "
            "unquantized ones; activations are not quantized. --engine vllm keeps them quantized",
        )
    if files.own.adapter is not None:
        return (f"quantized weights ({found.method}) are dequantized to {runs_in} to merge the adapter",)
    if asked == "auto":
        return ()
    if asked != runs_in:
        return (f"--dtype {asked} has no effect: {found.method} computes in {runs_in}",)
    inside = found.settings.get("bnb_4bit_compute_dtype") if found.settings.get("load_in_4bit") else None
    in_what = f", which compute in {inside}" if isinstance(inside, str) else ""
    return (f"--dtype {asked} has no effect on the quantized layers ({found.method}){in_what}, only on the others",)

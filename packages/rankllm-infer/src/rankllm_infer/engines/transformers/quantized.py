"""Quantized weights in transformers: what they need, which are dequantized as they are loaded, and heads left exact.

Formats that transformers would run by kernels which it downloads from the hub (FP8, MXFP4) are dequantized, and so are
those that it decompresses before the first forward pass in any case (compressed-tensors). The others stay as they are.
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
"""An adapter merged into its 4 or 8 bits would be rounded away."""
_KEPT_MODULES = {
    "awq": "modules_to_not_convert",
    "bitsandbytes": "llm_int8_skip_modules",
    "torchao": "modules_to_not_convert",
}
"""Methods that stay quantized -> the setting that lists the modules which are not."""
_HEADS = ("score", "lm_head")
_FLOATS = ("F16", "BF16", "F32", "F64")


def check_quantization(files: ModelFiles, device: torch.device) -> Quantization | None:
    """How a model's weights are quantized, once it is known that they can be loaded; None where they are not.

    Nothing but small files is read. Raises MissingPackageError for a package that is not installed, ContractError for a
    method, or an adapter over a base, that cannot be loaded here, RankLLMError for a device that lacks what it takes.
    """
    found, name = quantization_of(files.base), files.base.name
    if found is None:
        return None
    if found.method not in PACKAGES:
        raise ContractError(
            f"{name}: its weights are quantized by a method that rankllm does not load with transformers "
            f"({found.method!r:.60}; it loads {', '.join(PACKAGES)}); use --engine vllm or a checkpoint of full weights"
        )
    check_packages(name, found.method, found.packages)
    if files.own.adapter is not None and found.method not in (*_DEQUANTIZED, _DEQUANTIZED_TO_MERGE):
        raise ContractError(
            f"{files.own.name}: an adapter cannot be merged into its base {name}, whose weights are quantized "
            f"({found.method}); name the full weights of the base with --base-model"
        )
    if found.method == "compressed-tensors":
        _check_one_scheme(name, found)
    _check_environment(name, found, device)
    return found


def _check_one_scheme(name: str, found: Quantization) -> None:
    """transformers 5.23 dequantizes all layers by the scheme of the first group."""
    groups = found.settings.get("config_groups")
    schemes = [
        (group.get("format"), group.get("weights")) if isinstance(group, Mapping) else None
        for group in (groups.values() if isinstance(groups, Mapping) else ())
    ]
    if any(scheme != schemes[0] for scheme in schemes):
        raise ContractError(
            f"{name}: its layers are quantized in {len(schemes)} different ways (config_groups), which transformers "
            "cannot dequantize; use --engine vllm"
        )


def _check_environment(name: str, found: Quantization, device: torch.device) -> None:
    """What transformers itself asks of packages, their versions and devices."""
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
    """Options of `from_pretrained` for quantized weights.

    options: those for weights that are not. held: the checkpoint's tensors. A head that they hold unquantized, or do
    not hold, is not quantized on loading, whatever the list of such modules says: a list that was made for a language
    model does not name a score head.
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
        # It reports each product that it computes in float16.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    changed: dict[str, Any] = {**options, "config": config}
    if found.method not in _DEQUANTIZED:
        changed.setdefault("device_map", {"": device})
    if found.method == "awq" and device.type == "cuda":
        changed["dtype"] = torch.float16  # AWQ's kernels on a GPU compute in nothing else
    return changed


def _is_exact(held: Mapping[str, TensorInfo], head: str) -> bool:
    info = held.get(f"{head}.weight")
    return info is None or info.dtype in _FLOATS


def settle_quantized(model: Any, found: Quantization, *, dtype: torch.dtype, files: ModelFiles) -> Any:
    """The loaded model, dequantized where it has to be and then of one dtype.

    Raises ContractError where its score head is quantized.
    """
    if files.own.adapter is not None and found.method == _DEQUANTIZED_TO_MERGE:
        with readable_load(files.base.path, problem="its weights cannot be dequantized"):
            model = model.dequantize(dtype)
        _set_dtype(model, dtype)
    elif found.method in _DEQUANTIZED:
        # What is not quantized keeps the type it is stored in.
        _set_dtype(model, dtype)
    head = getattr(model, "score", None)
    if head is not None and type(head) is not torch.nn.Linear:
        raise ContractError(
            f"{files.base.path}: its score head is quantized ({type(head).__name__}), so its scores are not those that "
            "were trained; use a checkpoint whose head is not"
        )
    return model


def _set_dtype(model: Any, dtype: torch.dtype) -> None:
    """Parameters alone, but for those that the model wants in float32; its buffers stay in float32."""
    kept = (*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ()))
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not (parameter.dtype == torch.float32 and any(k in name for k in kept)):
            parameter.data = parameter.data.to(dtype)


def quantization_notes(found: Quantization, files: ModelFiles, *, asked: str, dtype: torch.dtype) -> tuple[str, ...]:
    """What a user should know: what the weights have become, and where `--dtype` decides nothing.

    asked: the value of --dtype. dtype: what the model runs in.
    """
    runs_in = str(dtype).removeprefix("torch.")
    if found.method in _DEQUANTIZED:
        return (
            f"quantized weights ({found.method}) are dequantized to {runs_in} as they are loaded, and take the memory "
            "of full ones; activations are not quantized. --engine vllm computes with them as they are",
        )
    if files.own.adapter is not None:
        return (f"quantized weights ({found.method}) are dequantized to {runs_in}, to merge the adapter into them",)
    if asked == "auto":
        return ()
    if asked != runs_in:
        return (f"--dtype {asked} has no effect: {found.method} computes in {runs_in}",)
    inside = found.settings.get("bnb_4bit_compute_dtype") if found.settings.get("load_in_4bit") else None
    in_what = f", which compute in {inside}" if isinstance(inside, str) else ""
    return (f"--dtype {asked} has no effect on the quantized layers ({found.method}){in_what}, only on the others",)

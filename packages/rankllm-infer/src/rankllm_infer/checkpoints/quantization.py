"""How a checkpoint's weights are quantized according to its config.json, and which packages are needed to load them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass

from rankllm_core.checkpoints.model_folder import unexpected
from rankllm_core.errors import MissingPackageError
from rankllm_infer.checkpoints.model_files import ModelFolder

PACKAGES: Mapping[str, tuple[str, ...]] = {
    "awq": ("gptqmodel",),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed-tensors",),
    "fp8": (),
    "gptq": ("gptqmodel", "optimum"),
    "mxfp4": (),
    "mxfp8": (),
    "torchao": ("torchao",),
}
"""Quantization methods that transformers can load -> required distributions besides those of rankllm-infer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """Contents of `quantization_config`."""

    method: str
    """Its `quant_method`; also `bitsandbytes` for older checkpoints with `load_in_4bit` or `load_in_8bit`."""
    settings: Mapping[str, object]

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions needed to load such weights in transformers; empty if none are needed or the method is
        unknown."""
        return PACKAGES.get(self.method, ())


def quantization_of(model: ModelFolder) -> Quantization | None:
    """Return how a model's weights are quantized; None if they are not. Raises RankLLMError for malformed settings."""
    found = model.config.get("quantization_config")
    if found is None and isinstance(text := model.config.get("text_config"), Mapping):
        found = text.get("quantization_config")
    if found is None:
        return None
    path = model.path / "config.json"
    if not isinstance(found, Mapping):
        raise unexpected(path, "quantization_config", "an object", found)
    method = found.get("quant_method")
    if found.get("load_in_4bit") or found.get("load_in_8bit"):
        method = "bitsandbytes"
    if not isinstance(method, str):
        raise unexpected(path, "quantization_config.quant_method", "the name of a method", method)
    return Quantization(method=method, settings=found)


def check_packages(name: str, method: str, packages: tuple[str, ...]) -> None:
    """Raise MissingPackageError with an install command if packages for a quantization method are missing.

    name: name of the model, for the message.
    """
    missing = [package for package in packages if not _is_installed(package)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingPackageError(
            f"{name}: its weights are quantized ({method}), which needs {' and '.join(missing)}, which {verb} not "
            f"installed. Install it with: uv add {' '.join(missing)}"
        )


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True

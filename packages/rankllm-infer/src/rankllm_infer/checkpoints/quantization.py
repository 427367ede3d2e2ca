"""How a checkpoint's weights are quantized, as its config.json says, and which packages that takes."""

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
"""Quantization method that transformers can load -> the distributions that takes beside those of rankllm-infer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """What `quantization_config` says."""

    method: str
    """Its `quant_method`; `bitsandbytes` also for older checkpoints, which say `load_in_4bit` or `load_in_8bit`."""
    settings: Mapping[str, object]

    @property
    def packages(self) -> tuple[str, ...]:
        """The distributions that load such weights in transformers; none where it needs none or does not know them."""
        return PACKAGES.get(self.method, ())


def quantization_of(model: ModelFolder) -> Quantization | None:
    """How a model's weights are quantized; None where they are not. Raises RankLLMError on settings of another form."""
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
    """Raise MissingPackageError, with the command that installs them, where packages of a method are missing.

    name: the model, for the message.
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

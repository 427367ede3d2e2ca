"""Find a model: a folder here, or a name on the hub, fetched once. Says at once when there is neither."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from rankllm_core.errors import ContractError, RankLLMError
from rankllm_infer.shipped_models import SHIPPED, is_shipped, shipped_base, shipped_folder

_OTHER_FORMATS = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.gguf", "*.onnx", "onnx/*", "original/*", "*.ot")
"""Weights in formats that are not needed where the repository has safetensors."""
_SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.yaml")
_PROBE_S = 10.0
_HUB_NAME = f" (a name on the hub looks like OWNER/MODEL; {' and '.join(SHIPPED.values())} come with the package)"
_GATED = "gated; accept its terms on its hub page, then log in: hf auth login"


@functools.cache
def locate_model(name_or_path: str, *, weights: bool = True) -> Path:
    """The folder with a model's files; a hub name is fetched, or found in the cache when the hub cannot be reached.

    weights: whether a hub model's weights are wanted, or its small files alone (configuration, tokenizer, card).
    Raises RankLLMError in one line when it is nowhere.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise RankLLMError(f"{name_or_path}: is a file, expected a model's folder")
    if (shipped := shipped_folder(name_or_path)) is not None:
        return shipped
    if path.is_absolute() or name_or_path.startswith((".", "~")) or name_or_path.count("/") != 1:
        raise RankLLMError(f"{name_or_path}: no such model folder{_HUB_NAME}")
    return _from_hub(name_or_path, weights=weights)


def _from_hub(name: str, *, weights: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        files = [sibling.rfilename for sibling in HfApi().model_info(name, timeout=_PROBE_S).siblings or []]
    except HFValidationError:
        raise RankLLMError(f"{name}: no such model folder{_HUB_NAME}") from None
    except GatedRepoError:
        raise RankLLMError(f"{name}: {_GATED}") from None
    except RepositoryNotFoundError:
        raise RankLLMError(f"{name}: no such model folder, and no such model on the hub") from None
    except Exception as error:  # whatever the network does: the cache may still have it
        try:
            return Path(snapshot_download(name, local_files_only=True))
        except LocalEntryNotFoundError:
            raise RankLLMError(
                f"{name}: no such model folder, not in the hub's cache, and the hub cannot be reached "
                f"({_first_line(error)})"
            ) from None
    skip = _OTHER_FORMATS if any(file.endswith(".safetensors") for file in files) else _OTHER_FORMATS[3:]
    try:
        if not weights:
            return Path(snapshot_download(name, allow_patterns=list(_SMALL_FILES)))
        return Path(snapshot_download(name, ignore_patterns=list(skip)))
    except GatedRepoError:
        raise RankLLMError(f"{name}: {_GATED}") from None
    except Exception as error:  # whatever the network does
        raise RankLLMError(
            f"{name}: the download broke off ({_first_line(error)}); the same command goes on with it"
        ) from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:120]


def adapter_config(name_or_path: str) -> dict[str, object] | None:
    """The adapter's configuration, or None for a full model."""
    return _json(locate_model(name_or_path, weights=False) / "adapter_config.json")


def model_config(name_or_path: str) -> dict[str, object]:
    """The model's `config.json`, or {} where there is none (an adapter)."""
    return _json(locate_model(name_or_path, weights=False) / "config.json") or {}


def has_score_head(name_or_path: str) -> bool:
    """Whether the checkpoint says that it was trained with a score head."""
    adapter = adapter_config(name_or_path)
    if adapter is not None:
        return adapter.get("task_type") == "SEQ_CLS"
    architectures = model_config(name_or_path).get("architectures")
    return isinstance(architectures, list) and any(str(a).endswith("ForSequenceClassification") for a in architectures)


def base_folder(name_or_path: str, base_model: str | None = None, *, weights: bool = True) -> Path:
    """Where the weights are: the model's own folder, or an adapter's base (`base_model`, else the one it names).

    Raises ContractError when an adapter names no base.
    """
    adapter = adapter_config(name_or_path)
    if adapter is None:
        return locate_model(name_or_path, weights=weights)
    named = base_model or adapter.get("base_model_name_or_path")
    if base_model is None and is_shipped(locate_model(name_or_path, weights=False)):
        named = shipped_base()
    if not named:
        raise ContractError(f"{name_or_path}: adapter_config.json names no base model; give it with --base-model")
    return locate_model(str(named), weights=weights)


def load_tokenizer(name_or_path: str, base_model: str | None = None) -> Any:
    """The checkpoint's tokenizer, or, of an adapter without one, its base's."""
    from transformers import AutoTokenizer

    folder = locate_model(name_or_path, weights=False)
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json")):
        folder = base_folder(name_or_path, base_model, weights=False)
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RankLLMError(f"{folder}: no tokenizer can be loaded from it ({reason[:200]})") from None


def _json(path: Path) -> dict[str, object] | None:
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RankLLMError(f"{path}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise RankLLMError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values

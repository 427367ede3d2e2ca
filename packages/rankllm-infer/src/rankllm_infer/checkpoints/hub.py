"""Find a model: a folder here, or a name on the hub, fetched once. Says at once when there is neither."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankllm_core.checkpoints.load_failures import readable_load
from rankllm_core.checkpoints.model_folder import check_settings_files
from rankllm_core.checkpoints.model_json import read_model_json
from rankllm_core.errors import ContractError, RankLLMError
from rankllm_infer.checkpoints.bundled import SHIPPED, is_shipped, shipped_base, shipped_folder

_OTHER_FORMATS = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.gguf", "*.onnx", "onnx/*", "original/*", "*.ot")
"""Weights in formats that are not needed where the repository has safetensors."""
_COPIES = ("consolidated*.safetensors",)
"""The same weights once more: Mistral's own layout, beside the one of transformers."""
_SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.yaml", "*.py")
"""Code is downloaded so that --trust-remote-code finds it; nothing runs without that option."""
_PROBE_S = 10.0
_HUB_NAME = f" (a name on the hub looks like OWNER/MODEL; {' and '.join(SHIPPED.values())} come with the package)"
_GATED = "gated; accept its terms on its hub page, then log in: hf auth login"


def locate_model(name_or_path: str, *, weights: bool = True) -> Path:
    """The folder with a model's files; a hub name is fetched, or found in the cache when the hub cannot be reached.

    A hub name may be pinned to a revision: OWNER/MODEL@COMMIT, with all 40 digits of the commit hash.
    weights: whether a hub model's weights are wanted, or its small files alone (configuration, tokenizer, card).
    Raises RankLLMError in one line when it is nowhere, or when one of its small files is damaged.
    """
    folder = _located(name_or_path, weights=weights)
    _check_once(folder, _stamp(folder))
    return folder


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """What tells whether a small file has changed: names, times and sizes. A folder may be written again meanwhile."""
    found = (
        (path.name, path.stat()) for path in sorted(folder.iterdir()) if path.suffix in (".json", ".jinja", ".model")
    )
    return tuple((name, status.st_mtime_ns, status.st_size) for name, status in found)


@functools.cache
def _check_once(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> None:
    check_settings_files(folder)


def split_revision(name: str) -> tuple[str, str | None]:
    """A hub name and the commit that it is pinned to, or None where it is not pinned."""
    found = re.fullmatch(r"(?P<name>[^@]+)@(?P<revision>[0-9a-f]{40})", name)
    return (found["name"], found["revision"]) if found else (name, None)


def _located(name_or_path: str, *, weights: bool) -> Path:
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


@functools.cache
def _from_hub(name_and_revision: str, *, weights: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name, revision = split_revision(name_and_revision)
    try:
        info = HfApi().model_info(name, revision=revision, timeout=_PROBE_S)
        files = [sibling.rfilename for sibling in info.siblings or []]
    except HFValidationError:
        raise RankLLMError(f"{name}: no such model folder{_HUB_NAME}") from None
    except GatedRepoError:
        raise RankLLMError(f"{name}: {_GATED}") from None
    except RepositoryNotFoundError:
        raise RankLLMError(f"{name}: no such model folder, and no such model on the hub") from None
    except RevisionNotFoundError:
        raise RankLLMError(f"{name}: the hub has no revision {revision} of it") from None
    except Exception as error:  # whatever the network does: the cache may still have it
        try:
            return Path(snapshot_download(name, revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            raise RankLLMError(
                f"{name}: no such model folder, not in the hub's cache, and the hub cannot be reached "
                f"({_first_line(error)})"
            ) from None
    skip = _not_needed(files)
    try:
        if not weights:
            return Path(snapshot_download(name, revision=revision, allow_patterns=list(_SMALL_FILES)))
        return Path(snapshot_download(name, revision=revision, ignore_patterns=skip))
    except GatedRepoError:
        raise RankLLMError(f"{name}: {_GATED}") from None
    except Exception as error:  # whatever the network does
        raise RankLLMError(
            f"{name}: the download broke off ({_first_line(error)}); the same command goes on with it"
        ) from None


def _not_needed(files: Sequence[str]) -> list[str]:
    """Patterns of the weights that are not loaded, of the files that a repository has."""
    has_safetensors = any(file.endswith(".safetensors") and not file.startswith("consolidated") for file in files)
    return [*_OTHER_FORMATS, *_COPIES] if has_safetensors else list(_OTHER_FORMATS[3:])


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:120]


def adapter_config(name_or_path: str) -> dict[str, object] | None:
    """The adapter's configuration, or None for a full model."""
    return read_model_json(locate_model(name_or_path, weights=False) / "adapter_config.json")


def model_config(name_or_path: str) -> dict[str, object]:
    """The model's `config.json`, or {} where there is none (an adapter)."""
    return read_model_json(locate_model(name_or_path, weights=False) / "config.json") or {}


def has_score_head(name_or_path: str) -> bool:
    """Whether the checkpoint says that it was trained with a score head."""
    adapter = adapter_config(name_or_path)
    if adapter is not None:
        return adapter.get("task_type") == "SEQ_CLS"
    architectures = model_config(name_or_path).get("architectures")
    return isinstance(architectures, list) and any(str(a).endswith("ForSequenceClassification") for a in architectures)


def base_folder(name_or_path: str, base_model: str | None = None, *, weights: bool = True) -> Path:
    """Where the weights are: the model's own folder, or an adapter's base (`base_model`, else the one it names).

    Raises ContractError when an adapter names no base, or a base that is an adapter itself.
    """
    adapter = adapter_config(name_or_path)
    if adapter is None:
        return locate_model(name_or_path, weights=weights)
    named = base_model or adapter.get("base_model_name_or_path")
    if base_model is None and is_shipped(locate_model(name_or_path, weights=False)):
        named = shipped_base()
    if not named:
        raise ContractError(f"{name_or_path}: adapter_config.json names no base model; give it with --base-model")
    try:
        folder = locate_model(str(named), weights=weights)
    except RankLLMError as error:
        if base_model is not None:
            raise
        raise RankLLMError(
            f"{name_or_path}: is an adapter, and its base model cannot be loaded ({error}); say where the base is, or "
            "its name on the hub, with --base-model"
        ) from None
    # transformers would go on to the base of the base by itself, wherever that is.
    if (folder / "adapter_config.json").exists():
        raise ContractError(
            f"{name_or_path}: its base {named} is an adapter itself; merge that one first (train merge {named} OUT) "
            "and give the result with --base-model"
        )
    return folder


def load_tokenizer(name_or_path: str, base_model: str | None = None, *, trust_remote_code: bool = False) -> Any:
    """The checkpoint's tokenizer, or, of an adapter without one, its base's.

    trust_remote_code: run code that comes with a full model, or with an adapter's base; see `check_remote_code`.
    Raises RankLLMError in one line where none can be loaded.
    """
    folder = locate_model(name_or_path, weights=False)
    is_adapter = (folder / "adapter_config.json").exists()
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer_config.json")):
        folder, is_adapter = base_folder(name_or_path, base_model, weights=False), False
    from transformers import AutoTokenizer

    from rankllm_core.nn.model_parts import fast_tokenizer_options

    options = {"trust_remote_code": trust_remote_code and not is_adapter, **fast_tokenizer_options()}
    with readable_load(folder, problem="no tokenizer can be loaded from it"):
        return AutoTokenizer.from_pretrained(folder, **options)

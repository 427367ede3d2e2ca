"""Find a model: a folder here, or a name on the hub, fetched once. Says at once when there is neither."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from rankllm_core.checkpoints.model_folder import check_settings_files, split_revision
from rankllm_core.errors import RankLLMError, first_line
from rankllm_infer.checkpoints.bundled import SHIPPED, shipped_folder

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
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError

    name, revision = split_revision(name_and_revision)
    files = _files_on_hub(name, revision)
    if files is None:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    try:
        if not weights:
            return Path(snapshot_download(name, revision=revision, allow_patterns=list(_SMALL_FILES)))
        return Path(snapshot_download(name, revision=revision, ignore_patterns=_not_needed(files)))
    except GatedRepoError:
        raise RankLLMError(f"{name}: {_GATED}") from None
    except Exception as error:  # whatever the network does
        raise RankLLMError(
            f"{name}: the download broke off ({first_line(error, with_kind=False)}); the same command goes on with it"
        ) from None


def _files_on_hub(name: str, revision: str | None) -> Sequence[str] | None:
    """A repository's files; None where the hub cannot be reached and its cache has the model."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        info = HfApi().model_info(name, revision=revision, timeout=_PROBE_S)
        return [sibling.rfilename for sibling in info.siblings or []]
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
            snapshot_download(name, revision=revision, local_files_only=True)
        except LocalEntryNotFoundError:
            raise RankLLMError(
                f"{name}: no such model folder, not in the hub's cache, and the hub cannot be reached "
                f"({first_line(error, with_kind=False)})"
            ) from None
    return None


def _not_needed(files: Sequence[str]) -> list[str]:
    """Patterns of the weights that are not loaded, of the files that a repository has."""
    has_safetensors = any(file.endswith(".safetensors") and not file.startswith("consolidated") for file in files)
    return [*_OTHER_FORMATS, *_COPIES] if has_safetensors else list(_OTHER_FORMATS[3:])

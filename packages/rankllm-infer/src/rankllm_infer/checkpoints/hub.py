"""Models that are no local folder: those that ship with the package, and those of the hub, fetched once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from rankllm_core.checkpoints.model_folder import split_revision
from rankllm_core.errors import RankLLMError, first_line

SHIPPED = {"pointwise": "smollm2-pointwise", "listwise": "smollm2-first"}
"""Method -> the name of its reranker."""
BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"

_OTHER_FORMATS = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.gguf", "*.onnx", "onnx/*", "original/*", "*.ot")
"""Weights in formats that are not needed where the repository has safetensors."""
_COPIES = ("consolidated*.safetensors",)
"""The same weights once more: Mistral's own layout, beside the one of transformers."""
_SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.yaml", "*.py")
"""Code is downloaded so that --trust-remote-code finds it; nothing runs without that option."""
_PROBE_S = 10.0
_NAME_HINT = f" (a name on the hub looks like OWNER/MODEL; {' and '.join(SHIPPED.values())} come with the package)"
_GATED_HINT = "gated; accept its terms on its hub page, then log in: hf auth login"


def find_elsewhere(name: str, *, weights: bool) -> Path:
    """The folder of a model that is no folder here: one that ships with the package, or one of the hub's, fetched.

    For the arguments and errors see `model_files.locate_model`.
    """
    path = Path(name).expanduser()
    if path.exists():
        raise RankLLMError(f"{name}: is a file, expected a model's folder")
    if (shipped := shipped_folder(name)) is not None:
        return shipped
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise RankLLMError(f"{name}: no such model folder{_NAME_HINT}")
    return _from_hub(name, weights=weights)


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
        raise RankLLMError(f"{name}: {_GATED_HINT}") from None
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
        raise RankLLMError(f"{name}: no such model folder{_NAME_HINT}") from None
    except GatedRepoError:
        raise RankLLMError(f"{name}: {_GATED_HINT}") from None
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


def shipped_folder(name: str) -> Path | None:
    """The folder of a reranker that ships with the package, or None where none has this name."""
    folder = shipped_models_folder() / name
    return folder if name in SHIPPED.values() and folder.is_dir() else None


def is_shipped(folder: Path) -> bool:
    """Whether a model's folder is one of the package's."""
    return folder.resolve().parent == shipped_models_folder().resolve()


def shipped_models_folder() -> Path:
    """Where the rerankers are that ship with the package, a folder each."""
    return Path(str(files("rankllm_infer"))) / "models"


def shipped_base() -> str:
    """Where the base of the shipped rerankers is: a folder, unpacked on the first call, or a name on the hub."""
    from rankllm_infer.checkpoints.demo_model import demo_model_path, has_demo_model

    return str(demo_model_path()) if has_demo_model() else BASE_MODEL

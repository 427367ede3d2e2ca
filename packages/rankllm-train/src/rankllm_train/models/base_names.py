"""Names of models: what a trained adapter calls its base, so that this machine and others find it."""

from __future__ import annotations

from pathlib import Path

from rankllm_core.checkpoints.model_folder import split_revision

_CACHE = "models--"


def base_name(name_or_path: str) -> str:
    """Return a model's name for people elsewhere: its name on the hub, else the last part of its folder's path.

    A folder of the hub's cache, models--OWNER--NAME/snapshots/COMMIT, has a name on the hub. What config.json calls
    `_name_or_path` is not asked: for a fine-tuned model that is the model it was made from.
    """
    path = Path(name_or_path)
    return _hub_name(path) or path.resolve().name if path.is_dir() else split_revision(name_or_path)[0]


def findable_base(name_or_path: str) -> str:
    """Return what adapter_config.json calls the base: its name on the hub, else an absolute path, found from anywhere.

    PEFT has one field for it, and on this machine no further option should be needed.
    """
    path = Path(name_or_path)
    return _hub_name(path) or str(path.resolve()) if path.is_dir() else name_or_path


def _hub_name(folder: Path) -> str:
    """OWNER/NAME of a folder in the hub's cache; empty for any other folder."""
    folder = folder.resolve()
    home = folder.parent.parent.name
    is_cached = folder.parent.name == "snapshots" and home.startswith(_CACHE)
    return home.removeprefix(_CACHE).replace("--", "/") if is_cached else ""

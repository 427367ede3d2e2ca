"""Names of base models, recorded in adapters so that this machine and others find them."""

from __future__ import annotations

from pathlib import Path

from rankllm_core.checkpoints.model_folder import split_revision

_CACHE = "models--"


def base_name(name_or_path: str) -> str:
    """Return a model's name for other machines: its hub name, else the last part of its folder's path.

    A hub cache folder, models--OWNER--NAME/snapshots/COMMIT, has a hub name. The `_name_or_path` in config.json is not
    used: in a fine-tuned model it names the model's own base.
    """
    path = Path(name_or_path)
    return _hub_name(path) or path.resolve().name if path.is_dir() else split_revision(name_or_path)[0]


def findable_base(name_or_path: str) -> str:
    """Return the base's name for adapter_config.json: its hub name, else an absolute path, valid from any working
    directory.

    PEFT has a single field for it, and on this machine no further option should be needed.
    """
    path = Path(name_or_path)
    return _hub_name(path) or str(path.resolve()) if path.is_dir() else name_or_path


def _hub_name(folder: Path) -> str:
    """Return OWNER/NAME for a folder in the hub cache; empty for any other folder."""
    folder = folder.resolve()
    home = folder.parent.parent.name
    is_cached = folder.parent.name == "snapshots" and home.startswith(_CACHE)
    return home.removeprefix(_CACHE).replace("--", "/") if is_cached else ""

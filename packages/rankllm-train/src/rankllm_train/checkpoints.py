"""Folders of checkpoints: they appear whole or not at all, go away in order, and are found again."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from rankllm_core.card import CARD_NAME
from rankllm_core.errors import RankLLMError
from rankllm_train.model_page import PAGE_NAME, is_own_page

STATE_NAME = "trainer_state.json"
BEST_NAME = "best.json"
"""Beside the model that was best on the dev data: its step, and by what it was the best."""
_ASIDE = ".saving-"
_REPLACED = ".replaced-"
_NAMES = re.compile(r"(epoch|step)_\d+")
_FINAL_NAMES = re.compile(
    r"(model.*\.safetensors(\.index\.json)?|adapter_model\..*|adapter_config\.json|(generation_)?config\.json|"
    r"tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab\..*|merges\.txt|chat_template\..*|"
    rf"{re.escape(CARD_NAME)}|{re.escape(BEST_NAME)})"
)
_STATE_NAMES = re.compile(
    r"(optimizer|scheduler|scaler)\.(pt|bin)|rng_state.*\.pth|trainer_state\.json|latest|zero_to_\w+\.py|global_step.*"
)
"""What a checkpoint holds beside its model, to go on from."""


def aside(output_dir: Path, name: str) -> Path:
    """Where a checkpoint is written until it is whole."""
    return output_dir / f"{_ASIDE}{name}"


def reveal(written: Path, target: Path) -> None:
    """Give a whole folder its name; one that had the name before goes away.

    A run that is killed between the two renames has lost nothing: `sweep` gives the old folder its name back.
    """
    if target.exists():
        old = target.with_name(f"{_REPLACED}{target.name}")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        written.rename(target)
        shutil.rmtree(old)
    else:
        written.rename(target)


def link_model(checkpoint: Path, folder: Path) -> None:
    """Put a checkpoint's model into a new folder, without what it takes to go on; no copies where links can be made."""
    folder.mkdir(parents=True)
    for path in checkpoint.iterdir():
        if _STATE_NAMES.fullmatch(path.name):
            continue
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
            continue
        try:
            os.link(path, folder / path.name)
        except OSError:  # another file system, or one without links
            shutil.copy2(path, folder / path.name)


def reveal_files(written: Path, folder: Path) -> None:
    """Move a model's files into a folder that holds other things, the card last: with it the model is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD_NAME).unlink(missing_ok=True)
    for stale in folder.iterdir():
        if stale.is_file() and _FINAL_NAMES.fullmatch(stale.name) and not (written / stale.name).exists():
            stale.unlink()
    for path in sorted(written.iterdir(), key=lambda path: path.name == CARD_NAME):
        if path.name == PAGE_NAME and (folder / PAGE_NAME).exists() and not is_own_page(folder / PAGE_NAME):
            continue  # a README of the user's
        os.replace(path, folder / path.name)
    # A link to a file that is in place already is not moved by replacing it with itself.
    shutil.rmtree(written)


def checkpoints(output_dir: Path) -> list[Path]:
    """The whole checkpoints of a folder, oldest first by their step."""
    if not output_dir.is_dir():
        return []
    found = [p for p in output_dir.iterdir() if _NAMES.fullmatch(p.name) and (p / CARD_NAME).exists()]
    return sorted(found, key=_age)


def _age(checkpoint: Path) -> tuple[int, float]:
    return (global_step(checkpoint), checkpoint.stat().st_mtime)


def global_step(checkpoint: Path) -> int:
    """The optimizer steps that a checkpoint has behind it; -1 where it does not say."""
    try:
        return int(json.loads((checkpoint / STATE_NAME).read_text(encoding="utf-8"))["global_step"])
    except (OSError, ValueError, KeyError, TypeError):
        return -1


def find_resumable(resume_from: str, output_dir: Path) -> Path:
    """The checkpoint that `--resume-from-checkpoint` names: a folder, or `latest` for the newest of output_dir.

    Raises RankLLMError where there is none, and where a folder is not a whole checkpoint of ours.
    """
    if resume_from == "latest":
        found = [path for path in checkpoints(output_dir) if _is_resumable(path)]
        if not found:
            raise RankLLMError(f"--resume-from-checkpoint latest: {output_dir} holds no checkpoint to go on from")
        return found[-1]
    folder = Path(resume_from)
    if not folder.is_dir():
        raise RankLLMError(f"--resume-from-checkpoint {resume_from}: no such folder")
    if folder.name.startswith((_ASIDE, _REPLACED)) or not _is_resumable(folder):
        raise RankLLMError(
            f"--resume-from-checkpoint {resume_from}: not a whole checkpoint (it needs {STATE_NAME}, scheduler.pt and "
            f"{CARD_NAME}); use latest, or a folder epoch_N or step_N written with checkpoint.resumable"
        )
    return folder


def _is_resumable(folder: Path) -> bool:
    has_optimizer = (folder / "scheduler.pt").exists() or any(folder.glob("global_step*"))
    return global_step(folder) >= 0 and has_optimizer and (folder / CARD_NAME).exists()


def rotate(output_dir: Path, *, keep: int, newest: Path) -> None:
    """Delete the oldest checkpoints until `keep` are left, `newest` among them; 0 keeps all."""
    found = sorted(checkpoints(output_dir), key=lambda path: path == newest)
    for path in found[: max(0, len(found) - keep)] if keep else ():
        remove(path)


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint. It is renamed first: one half deleted must not pass for a whole one."""
    doomed = checkpoint.with_name(f"{_ASIDE}old-{checkpoint.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    checkpoint.rename(doomed)
    shutil.rmtree(doomed)


def sweep(output_dir: Path) -> None:
    """Delete what a killed run left half written, and give back its name to what it was about to replace."""
    for path in output_dir.glob(f"{_REPLACED}*"):
        target = path.with_name(path.name.removeprefix(_REPLACED))
        if target.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(target)
    for path in output_dir.glob(f"{_ASIDE}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)

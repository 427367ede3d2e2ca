"""Checkpoint folders: written atomically, rotated, and found again when a run is resumed."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from rankllm_core.card import CARD_NAME
from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.files.manifest import MANIFEST_NAME, find_damage, read_manifest, write_manifest
from rankllm_core.files.writing import follow_umask, sync_folder
from rankllm_train.artifacts.model_page import PAGE_NAME, is_own_page
from rankllm_train.artifacts.run_record import RECORD_NAME

STATE_NAME = "trainer_state.json"
BEST_NAME = "best.json"
"""Record next to the best model on the dev data: its step, metric and value."""
ASIDE = ".saving-"
REPLACED = ".replaced-"
CHECKPOINT_NAMES = re.compile(r"(epoch|step)_\d+")
_FINAL_NAMES = re.compile(
    r"(model.*\.safetensors(\.index\.json)?|adapter_model\..*|adapter_config\.json|(generation_)?config\.json|"
    r"tokenizer.*|special_tokens_map\.json|added_tokens\.json|vocab\..*|merges\.txt|chat_template\..*|"
    rf"{re.escape(CARD_NAME)}|{re.escape(BEST_NAME)}|{re.escape(MANIFEST_NAME)}|{re.escape(RECORD_NAME)})"
)
_STATE_NAMES = re.compile(
    r"(optimizer|scheduler|scaler)\.(pt|bin)|rng_state.*\.pth|trainer_state\.json|latest|zero_to_\w+\.py|global_step.*"
)
"""Files of a checkpoint needed to resume, in addition to the model."""
_LOADED_NAMES = re.compile(r"pytorch_model.*|adapter_model\..*|model.*\.safetensors.*")
"""Further weight files that would be loaded if present."""
_WEIGHTS = (".safetensors", ".bin", ".pt")


def aside(output_dir: Path, name: str) -> Path:
    """Return the temporary folder of a checkpoint that is being written."""
    return output_dir / f"{ASIDE}{name}"


def reveal(written: Path, target: Path) -> None:
    """Give a completed folder its final name, replacing an existing folder of that name.

    A run killed between the two renames loses nothing: `sweep` restores the name of the old folder.
    """
    if target.exists():
        old = target.with_name(f"{REPLACED}{target.name}")
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        written.rename(target)
        shutil.rmtree(old)
    else:
        written.rename(target)
    sync_folder(target.parent)


def seal(folder: Path, *, step: int, source: Path | None = None) -> None:
    """Complete a temporary folder by writing its manifest, the last file.

    Weights, which safetensors writes with owner-only permissions, get the permissions of the other files.
    step: number of optimizer steps taken. source: sealed folder from which files of the same name were copied.
    """
    follow_umask(folder)
    known = {} if source is None else read_manifest(source).files
    taken = {name: entry for name, entry in known.items() if name.endswith(_WEIGHTS) and (folder / name).is_file()}
    write_manifest(folder, step=step, known=taken)


def link_model(checkpoint: Path, folder: Path) -> None:
    """Put a checkpoint's model into a new folder, without the state needed to resume.

    Weights, which are never modified in place, are hard-linked where the file system allows it. Everything else is
    copied, so that editing a card or configuration in one folder does not affect the other.
    """

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:  # a different file system, or one without hard links
            shutil.copy2(source, target)

    _take_model(checkpoint, folder, lambda a, b: link(a, b) if a.endswith(_WEIGHTS) else shutil.copy2(a, b))


def copy_model(source: Path, folder: Path) -> None:
    """Like `link_model`, but copies everything: files handed to users are not shared with files that a run depends
    on."""
    _take_model(source, folder, shutil.copy2)


def _take_model(source: Path, folder: Path, take: Callable[[str, str], object]) -> None:
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if _STATE_NAMES.fullmatch(path.name) or path.name == MANIFEST_NAME:
            continue
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
        else:
            take(str(path), str(folder / path.name))


def reveal_files(written: Path, folder: Path) -> None:
    """Move a model's files into a folder that may hold other files, the card last: it marks the model as complete."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD_NAME).unlink(missing_ok=True)
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    for stale in folder.iterdir():
        if stale.is_file() and _FINAL_NAMES.fullmatch(stale.name) and not (written / stale.name).exists():
            stale.unlink()
    last = (MANIFEST_NAME, CARD_NAME)
    for path in sorted(written.iterdir(), key=lambda path: last.index(path.name) if path.name in last else -1):
        if path.name == PAGE_NAME and (folder / PAGE_NAME).exists() and not is_own_page(folder / PAGE_NAME):
            continue  # written by the user
        if path.is_dir():
            shutil.rmtree(folder / path.name, ignore_errors=True)
        os.replace(path, folder / path.name)
    shutil.rmtree(written)
    sync_folder(folder)


def final_step(folder: Path) -> int | None:
    """Return the step of the complete model in an output folder; None if there is none or its weights are damaged."""
    try:
        step = read_manifest(folder).step
    except DataError:
        return None
    is_whole = (folder / CARD_NAME).exists() and find_damage(
        folder, is_read=lambda name: name.endswith(_WEIGHTS)
    ) is None
    return step if is_whole else None


def checkpoints(output_dir: Path) -> list[Path]:
    """Return the checkpoints in a folder, including damaged ones, ordered by step."""
    return sorted((path for path in _with_our_names(output_dir) if _is_ours(path)), key=_age)


def _with_our_names(output_dir: Path) -> list[Path]:
    return (
        [path for path in output_dir.iterdir() if CHECKPOINT_NAMES.fullmatch(path.name)] if output_dir.is_dir() else []
    )


def _is_ours(folder: Path) -> bool:
    return any((folder / name).exists() for name in (CARD_NAME, MANIFEST_NAME, STATE_NAME))


def _age(checkpoint: Path) -> tuple[int, float]:
    return (global_step(checkpoint), checkpoint.stat().st_mtime)


def global_step(checkpoint: Path) -> int:
    """Return a checkpoint's number of optimizer steps from its manifest, name or state; -1 if none of them tells."""
    try:
        if (step := read_manifest(checkpoint).step) is not None:
            return step
    except DataError:
        pass  # damage is reported where a checkpoint is chosen
    if checkpoint.name.startswith("step_") and checkpoint.name[5:].isdecimal():
        return int(checkpoint.name[5:])
    try:
        return int(json.loads((checkpoint / STATE_NAME).read_bytes())["global_step"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return -1


def find_resumable(resume_from: str, output_dir: Path, *, say: Callable[[str], None] = lambda line: None) -> Path:
    """Find the checkpoint named by `--resume-from-checkpoint`: a folder, or `latest` for the newest intact one.

    Every byte is checked against the manifest. say: called with a line for each newer checkpoint that was skipped, and
    why. Raises RankLLMError if there is none, or if the folder is not a complete checkpoint.
    """
    option = f"--resume-from-checkpoint {resume_from}"
    if resume_from != "latest":
        folder = Path(resume_from)
        if not folder.is_dir():
            raise RankLLMError(f"{option}: no such folder")
        if fault := resume_fault(folder):
            raise RankLLMError(
                f"{option}: not a complete checkpoint ({fault}); use latest, which picks the newest intact one, or "
                "another epoch_N or step_N folder"
            )
        return folder
    faults: list[str] = []
    found = [path for path in _with_our_names(output_dir) if path.is_dir()]
    # Folders whose step is unknown come first: they may be the newest.
    for folder in sorted(found, key=lambda path: (global_step(path) < 0, *_age(path)), reverse=True):
        fault = resume_fault(folder)
        if fault is None:
            for skipped in faults:
                say(f"Warning: skipped {skipped}")
            return folder
        faults.append(f"{folder.name}: {fault}")
    if not faults:
        raise RankLLMError(f"{option}: {output_dir} contains no checkpoint to resume from")
    raise RankLLMError(
        f"{option}: {output_dir} contains no intact checkpoint ({'; '.join(faults)}); restore one, or start over with "
        "--overwrite-output-dir"
    )


def resume_fault(folder: Path) -> str | None:
    """Return why a folder cannot be resumed from, naming the file at fault, or None if it can."""
    if folder.name.startswith((ASIDE, REPLACED)):
        return "its writing was interrupted"
    if not (folder / MANIFEST_NAME).exists():
        return f"{MANIFEST_NAME}: missing; the folder is incomplete, or written by a rankllm version without manifests"
    if damage := find_damage(folder, is_loaded=_is_loaded):
        return damage
    is_plain = (folder / "optimizer.pt").exists() and (folder / "scheduler.pt").exists()
    if not is_plain and not any(folder.glob("global_step*")):
        return "it contains no optimizer state: it is a final or best model, or checkpoint.resumable was false"
    missing = [name for name in (STATE_NAME, CARD_NAME, RECORD_NAME) if not (folder / name).exists()]
    return f"{missing[0]}: missing" if missing else None


def _is_loaded(name: str) -> bool:
    first = name.partition("/")[0]
    return any(names.fullmatch(first) for names in (_STATE_NAMES, _FINAL_NAMES, _LOADED_NAMES))


def rotate(output_dir: Path, *, keep: int, newest: Path) -> None:
    """Delete the oldest checkpoints until `keep` are left, including `newest`; 0 keeps all."""
    found = sorted(checkpoints(output_dir), key=lambda path: path == newest)
    for path in found[: max(0, len(found) - keep)] if keep else ():
        remove(path)


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint. It is renamed first, so that a partly deleted one is never mistaken for a complete one."""
    stale = checkpoint.with_name(f"{ASIDE}old-{checkpoint.name}")
    shutil.rmtree(stale, ignore_errors=True)
    checkpoint.rename(stale)
    shutil.rmtree(stale)


def sweep(output_dir: Path) -> None:
    """Delete partly written folders of a killed run, and restore the names of folders it was about to replace."""
    for path in output_dir.glob(f"{REPLACED}*"):
        target = path.with_name(path.name.removeprefix(REPLACED))
        if target.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(target)
    for path in output_dir.glob(f"{ASIDE}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)

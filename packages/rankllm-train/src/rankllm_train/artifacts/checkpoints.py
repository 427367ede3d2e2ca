"""Folders of checkpoints: they appear whole or not at all, go away in order, and are found again."""

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
"""Beside the model that was best on the dev data: its step, and by what it was the best."""
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
"""What a checkpoint holds beside its model, to resume from."""
_LOADED_NAMES = re.compile(r"pytorch_model.*|adapter_model\..*|model.*\.safetensors.*")
"""Weights that would be loaded where they are present, beside the names above."""
_WEIGHTS = (".safetensors", ".bin", ".pt")


def aside(output_dir: Path, name: str) -> Path:
    """Where a checkpoint is written until it is whole."""
    return output_dir / f"{ASIDE}{name}"


def reveal(written: Path, target: Path) -> None:
    """Give a whole folder its name; one that had the name before goes away.

    A run that is killed between the two renames has lost nothing: `sweep` gives the old folder its name back.
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
    """Complete a folder that was written aside: list its files in a manifest, which is the last to be written.

    Weights, which safetensors writes for their owner alone, get the permissions of the other files.
    step: optimizer steps behind the model. source: a sealed folder that files of the same name were copied from.
    """
    follow_umask(folder)
    known = {} if source is None else read_manifest(source).files
    taken = {name: entry for name, entry in known.items() if name.endswith(_WEIGHTS) and (folder / name).is_file()}
    write_manifest(folder, step=step, known=taken)


def link_model(checkpoint: Path, folder: Path) -> None:
    """Put a checkpoint's model into a new folder, without the state to resume from.

    Weights, which are never changed in place, are linked where links can be made; all else is copied, so that a card
    or a configuration that is edited in one folder stays as it is in the other.
    """

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            shutil.copy2(source, target)

    _take_model(checkpoint, folder, lambda a, b: link(a, b) if a.endswith(_WEIGHTS) else shutil.copy2(a, b))


def copy_model(source: Path, folder: Path) -> None:
    """The same, as copies alone: what is handed to a user shares no file with what a run depends on."""
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
    """Move a model's files into a folder that holds other things, the card last: with it the model is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CARD_NAME).unlink(missing_ok=True)
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    for stale in folder.iterdir():
        if stale.is_file() and _FINAL_NAMES.fullmatch(stale.name) and not (written / stale.name).exists():
            stale.unlink()
    last = (MANIFEST_NAME, CARD_NAME)
    for path in sorted(written.iterdir(), key=lambda path: last.index(path.name) if path.name in last else -1):
        if path.name == PAGE_NAME and (folder / PAGE_NAME).exists() and not is_own_page(folder / PAGE_NAME):
            continue  # a README of the user's
        if path.is_dir():
            shutil.rmtree(folder / path.name, ignore_errors=True)
        os.replace(path, folder / path.name)
    shutil.rmtree(written)
    sync_folder(folder)


def final_step(folder: Path) -> int | None:
    """The step of the complete model that an output folder holds, its weights undamaged; None where it holds none."""
    try:
        step = read_manifest(folder).step
    except DataError:
        return None
    is_whole = (folder / CARD_NAME).exists() and find_damage(
        folder, is_read=lambda name: name.endswith(_WEIGHTS)
    ) is None
    return step if is_whole else None


def checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints of a folder, damaged ones included, oldest first by their step."""
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
    """The optimizer steps behind a checkpoint, as its manifest, its name or its state says; -1 where none does."""
    try:
        if (step := read_manifest(checkpoint).step) is not None:
            return step
    except DataError:
        pass  # damaged: it is told wherever a checkpoint is chosen
    if checkpoint.name.startswith("step_") and checkpoint.name[5:].isdecimal():
        return int(checkpoint.name[5:])
    try:
        return int(json.loads((checkpoint / STATE_NAME).read_bytes())["global_step"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return -1


def find_resumable(resume_from: str, output_dir: Path, *, say: Callable[[str], None] = lambda line: None) -> Path:
    """The checkpoint that `--resume-from-checkpoint` names: a folder, or `latest` for the newest intact one.

    Every byte of it is checked against its manifest. say: is told which newer checkpoints were skipped, and why.
    Raises RankLLMError where there is none, and where a folder is not a whole checkpoint of ours.
    """
    option = f"--resume-from-checkpoint {resume_from}"
    if resume_from != "latest":
        folder = Path(resume_from)
        if not folder.is_dir():
            raise RankLLMError(f"{option}: no such folder")
        if fault := resume_fault(folder):
            raise RankLLMError(
                f"{option}: not a whole checkpoint ({fault}); use latest, which picks the newest intact one, or "
                "another folder epoch_N or step_N"
            )
        return folder
    faults: list[str] = []
    found = [path for path in _with_our_names(output_dir) if path.is_dir()]
    # First those of which nothing says how far they were: they may be the newest.
    for folder in sorted(found, key=lambda path: (global_step(path) < 0, *_age(path)), reverse=True):
        fault = resume_fault(folder)
        if fault is None:
            for skipped in faults:
                say(f"Warning: skipped {skipped}")
            return folder
        faults.append(f"{folder.name}: {fault}")
    if not faults:
        raise RankLLMError(f"{option}: {output_dir} holds no checkpoint to resume from")
    raise RankLLMError(
        f"{option}: {output_dir} holds no intact checkpoint ({'; '.join(faults)}); restore one, or start over with "
        "--overwrite-output-dir"
    )


def resume_fault(folder: Path) -> str | None:
    """Why a run cannot be resumed from a folder, in words that name the file; None where it can."""
    if folder.name.startswith((ASIDE, REPLACED)):
        return "it was never completed"
    if not (folder / MANIFEST_NAME).exists():
        return (
            f"{MANIFEST_NAME}: is missing; the folder is incomplete, or of a version of rankllm that wrote no manifests"
        )
    if damage := find_damage(folder, is_loaded=_is_loaded):
        return damage
    is_plain = (folder / "optimizer.pt").exists() and (folder / "scheduler.pt").exists()
    if not is_plain and not any(folder.glob("global_step*")):
        return "it holds a model without the optimizer's state: a final or best one, or checkpoint.resumable was false"
    missing = [name for name in (STATE_NAME, CARD_NAME, RECORD_NAME) if not (folder / name).exists()]
    return f"{missing[0]}: is missing" if missing else None


def _is_loaded(name: str) -> bool:
    first = name.partition("/")[0]
    return any(names.fullmatch(first) for names in (_STATE_NAMES, _FINAL_NAMES, _LOADED_NAMES))


def rotate(output_dir: Path, *, keep: int, newest: Path) -> None:
    """Delete the oldest checkpoints until `keep` are left, `newest` among them; 0 keeps all."""
    found = sorted(checkpoints(output_dir), key=lambda path: path == newest)
    for path in found[: max(0, len(found) - keep)] if keep else ():
        remove(path)


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint. It is renamed first: one half deleted must not pass for a whole one."""
    doomed = checkpoint.with_name(f"{ASIDE}old-{checkpoint.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    checkpoint.rename(doomed)
    shutil.rmtree(doomed)


def sweep(output_dir: Path) -> None:
    """Delete what a killed run left half written, and give back its name to what it was about to replace."""
    for path in output_dir.glob(f"{REPLACED}*"):
        target = path.with_name(path.name.removeprefix(REPLACED))
        if target.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(target)
    for path in output_dir.glob(f"{ASIDE}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)

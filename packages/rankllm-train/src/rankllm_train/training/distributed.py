"""Multi-process training: DeepSpeed configurations, and checks before the first collective call."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from rankllm_core.config import did_you_mean, load_yaml, mapping, parse_yaml
from rankllm_core.errors import ConfigError, DataError, MissingPackageError, RankLLMError
from rankllm_core.files import read_json

_SUFFIX = ".yaml"
_DECIDED = {"optimizer": "optim", "scheduler": "schedule"}
"""Sections of a DeepSpeed file -> the section of the recipe that decides in their place. Tevatron's file has both."""
_LOSS_SCALING = ("loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis", "min_loss_scale")
"""Settings of float16. Tevatron's file gives them for bfloat16 as well, where DeepSpeed 0.19 refuses unknown keys."""

Decision = TypeVar("Decision")


def deepspeed_names() -> tuple[str, ...]:
    """Names of the bundled DeepSpeed configurations."""
    folder = resources.files("rankllm_train") / "deepspeed"
    return tuple(sorted(i.name.removesuffix(_SUFFIX) for i in folder.iterdir() if i.name.endswith(_SUFFIX)))


def load_deepspeed(name_or_path: str, *, say: Callable[[str], None] = lambda line: None) -> dict[str, object]:
    """Load a bundled configuration by name, or a JSON or YAML file.

    Sections that the recipe decides are dropped, with a warning to say. Raises ConfigError if there is no such
    configuration, or if it would save no weights.
    """
    path = Path(name_or_path)
    # Pipes and devices go to the reader too, which rejects them with a clear message.
    if path.exists() and not path.is_dir():
        config = _read(path)
    elif name_or_path in deepspeed_names():
        text = (resources.files("rankllm_train") / "deepspeed" / f"{name_or_path}{_SUFFIX}").read_text(encoding="utf-8")
        config = mapping(parse_yaml(text, where=name_or_path), where=name_or_path)
    else:
        hint = did_you_mean(name_or_path, deepspeed_names())
        raise ConfigError(f"--deepspeed {name_or_path}: expected a file or one of {', '.join(deepspeed_names())}{hint}")
    where = f"--deepspeed {name_or_path}"
    config = _without_idle_settings(config, where=where, say=say)
    _check(config, where=where)
    return config


def _without_idle_settings(config: dict[str, object], *, where: str, say: Callable[[str], None]) -> dict[str, object]:
    """Drop what the recipe decides and what DeepSpeed refuses, with a warning for each."""
    if decided := [key for key in _DECIDED if key in config]:
        sections = " and ".join(f"{key} (section {_DECIDED[key]})" for key in decided)
        say(f"Warning: {where}: the recipe decides {sections}; the file's settings for it are ignored")
    config = {key: value for key, value in config.items() if key not in _DECIDED}
    section = config.get("bf16")
    if isinstance(section, dict) and (scaling := [key for key in _LOSS_SCALING if key in section]):
        say(f"Warning: {where}: bf16: has no loss scaling; {', '.join(scaling)} are ignored")
        config["bf16"] = {key: value for key, value in section.items() if key not in _LOSS_SCALING}
    return config


def _read(path: Path) -> dict[str, object]:
    # YAML would read 5e8, which is common in such files, as text.
    try:
        config = mapping(read_json(path), where=str(path)) if path.suffix == ".json" else load_yaml(path)
        json.dumps(config, allow_nan=False)
    except DataError as error:
        raise ConfigError(str(error)) from None
    except ValueError:
        raise ConfigError(f"{path}: contains NaN or an infinite number, expected finite numbers") from None
    return config


def _check(config: Mapping[str, object], *, where: str) -> None:
    zero = config.get("zero_optimization")
    stage = zero.get("stage") if isinstance(zero, Mapping) else None
    if type(stage) is not int or stage not in (0, 1, 2, 3):
        raise ConfigError(f"{where}: zero_optimization.stage: expected 0, 1, 2 or 3, found {stage!r}")
    gathers = "stage3_gather_16bit_weights_on_model_save"
    if stage == 3 and not (isinstance(zero, Mapping) and zero.get(gathers)):
        raise ConfigError(
            f"{where}: zero_optimization.{gathers}: expected true; otherwise checkpoints contain no weights"
        )


def check_launch(*, deepspeed: bool, precision: str, has_accelerator: bool) -> None:
    """Raise ConfigError or MissingPackageError if the processes were launched in a way that cannot train.

    has_accelerator: whether there is a GPU or another device that DeepSpeed supports.
    """
    environment = os.environ
    if environment.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise ConfigError("accelerate is configured for FSDP, which rankllm does not support; use --deepspeed zero3")
    if not deepspeed:
        if environment.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
            raise ConfigError(
                f"accelerate is configured for DeepSpeed, but the recipe is not; add --deepspeed with one of "
                f"{', '.join(deepspeed_names())} or a configuration file"
            )
        return
    if importlib.util.find_spec("deepspeed") is None:
        raise MissingPackageError(
            "--deepspeed needs DeepSpeed, which is not installed. Install it with: uv add 'rankllm-train[deepspeed]' "
            "(in a clone: uv sync --package rankllm-train --extra deepspeed)"
        )
    if "LOCAL_RANK" not in environment:
        raise ConfigError(
            "--deepspeed: this process was started without a launcher; use accelerate launch or torchrun, for example "
            "torchrun --nproc-per-node N -m rankllm_train (N may be 1)"
        )
    if not has_accelerator and precision != "fp32":
        raise ConfigError(
            f"model.precision: {precision} with DeepSpeed needs a GPU, but none is available; use --no-bf16 (float32)"
        )


def join_processes_on_cpu() -> None:
    """Initialize accelerate's state for DeepSpeed without a GPU.

    By themselves, transformers and accelerate choose no backend there, and each process trains on its own.
    """
    from accelerate import PartialState
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    told = os.environ.get("ACCELERATE_USE_DEEPSPEED")
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    try:
        PartialState(backend="gloo")
    finally:
        # transformers sets and removes it by itself.
        if told is None:
            del os.environ["ACCELERATE_USE_DEEPSPEED"]


def check_resumable_here(checkpoint: Path, *, deepspeed: bool, processes: int) -> tuple[str, ...]:
    """Return a note if the run will differ from the one that wrote the checkpoint, else nothing.

    Raises ConfigError if this run cannot read the checkpoint's optimizer state.
    """
    of_deepspeed = any(checkpoint.glob("global_step*"))
    writers = max(1, len(list(checkpoint.glob("rng_state_*.pth"))))  # a single process writes no number
    if of_deepspeed != deepspeed:
        does = "with" if of_deepspeed else "without"
        raise ConfigError(
            f"--resume-from-checkpoint {checkpoint}: was written {does} --deepspeed; resume it {does} --deepspeed"
        )
    if writers == processes:
        return ()
    if deepspeed:
        raise ConfigError(
            f"--resume-from-checkpoint {checkpoint}: its optimizer state was written by {writers} processes and "
            f"cannot be read by {processes}; start {writers} processes"
        )
    name = checkpoint.name
    return (
        f"Warning: {name} was written by {writers} processes and is resumed by {processes}: "
        "batches and random numbers will differ",
    )


def first_decides(decide: Callable[[], Decision]) -> Decision:
    """Let process 0 make a decision that depends on files, so that all processes act on the same one.

    Every process returns its value, or raises its RankLLMError. The value must be picklable.
    """
    import torch.distributed as processes

    if not (processes.is_available() and processes.is_initialized()) or processes.get_world_size() == 1:
        return decide()
    from accelerate.utils import broadcast_object_list

    outcome: list[Any] = [None, None]
    if processes.get_rank() == 0:
        try:
            outcome = [decide(), None]
        except RankLLMError as error:
            outcome = [None, str(error)]
    value, fault = broadcast_object_list(outcome)
    if fault is not None:
        raise RankLLMError(fault)
    return value  # type: ignore[no-any-return]

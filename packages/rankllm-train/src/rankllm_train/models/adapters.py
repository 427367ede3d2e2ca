"""Training that continues from an adapter: only its weights are used, in place of newly initialized ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rankllm_core.card import load_card
from rankllm_core.errors import ConfigError, RankLLMError, first_line
from rankllm_core.files.manifest import check_intact
from rankllm_core.nn.model_parts import readable_load
from rankllm_train.models.heads import head_parts, is_in_head

ADAPTER_NAME = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_SAME = {"r": "lora.r", "lora_alpha": "lora.alpha"}
"""Settings that decide the size of an adapter's update: PEFT key -> recipe key."""
_UNUSUAL = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out")
"""Further settings of that kind, which recipes do not support."""


def start_from_adapter(model: Any, folder: str) -> None:
    """Load the adapter in a folder into a model with new adapters of the same shape.

    Layers that the adapter does not cover keep their new adapters, which have no effect yet, and a score layer its new
    weights; the adapter's score layer is dropped if the model has none. Raises ConfigError if the folder holds no
    complete adapter, or one with another base, rank, scale or set of layers.
    """
    from peft import load_peft_weights, set_peft_model_state_dict

    where = f"lora.start_from: {folder}"
    settings = _settings(Path(folder), where)
    _check_shape(settings, model.peft_config["default"], where)
    _check_base(settings, folder, model.peft_config["default"].base_model_name_or_path, where)
    try:
        check_intact(folder)
    except RankLLMError as error:
        raise ConfigError(f"lora.start_from: {error}") from None
    try:
        with readable_load(folder):
            weights = load_peft_weights(folder, device="cpu")
    except RankLLMError as error:
        cause = error if error.__cause__ is None else error.__cause__
        raise ConfigError(f"{where}: its weights cannot be read ({first_line(cause)})") from None
    weights = _with_own_head(model, weights)
    try:
        report = set_peft_model_state_dict(model, weights)
    except RuntimeError as error:
        reason = first_line(error, with_kind=False)
        shape = next((line.strip() for line in str(error).splitlines() if "size mismatch" in line), reason)
        raise ConfigError(f"{where}: was trained on a different base model ({shape})") from None
    if report.unexpected_keys:
        name = report.unexpected_keys[0]
        raise ConfigError(
            f"{where}: adapts layers that the recipe does not, such as {name}; add them to lora.target_modules"
        )


def _settings(folder: Path, where: str) -> dict[str, Any]:
    if not (folder / ADAPTER_NAME).is_file():
        raise ConfigError(f"{where}: expected a LoRA adapter, but {ADAPTER_NAME} is missing")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise ConfigError(f"{where}: {_WEIGHTS[0]} is missing")
    try:
        settings = json.loads((folder / ADAPTER_NAME).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: {ADAPTER_NAME} is not JSON ({error})") from None
    kind = settings.get("peft_type") if isinstance(settings, dict) else None
    if kind != "LORA":
        raise ConfigError(f"{where}: {ADAPTER_NAME}: peft_type: expected LORA, found {kind!r}")
    return dict(settings)


def _check_shape(settings: dict[str, Any], mine: Any, where: str) -> None:
    for key, name in _SAME.items():
        if settings.get(key) != getattr(mine, key):
            raise ConfigError(
                f"{where}: has {name} {settings.get(key)}, but the recipe has {getattr(mine, key)}; set {name}"
            )
    for key in _UNUSUAL:
        if settings.get(key):
            raise ConfigError(
                f"{where}: has {key} {settings[key]}, which recipes do not support; merge it first (train merge)"
            )


def _check_base(settings: dict[str, Any], folder: str, base: str | None, where: str) -> None:
    card = load_card(folder)
    theirs = (card.base_model if card else None) or settings.get("base_model_name_or_path")
    if theirs and base and _model_name(str(theirs)) != _model_name(base):
        raise ConfigError(f"{where}: was trained on {theirs}, but the recipe names {base}; use the same base model")


def _model_name(name_or_path: str) -> str:
    """Return the last part of a model's name; NAME for a hub cache folder, models--OWNER--NAME/snapshots/HASH."""
    path = Path(name_or_path)
    return path.parent.parent.name.split("--")[-1] if path.parent.name == "snapshots" else path.name


def _with_own_head(model: Any, weights: dict[str, Any]) -> dict[str, Any]:
    """Return the adapter's weights, with a head if and only if the model has one, as PEFT requires."""
    from peft import get_peft_model_state_dict

    parts = head_parts(model.get_base_model())
    if not parts:
        return {name: weight for name, weight in weights.items() if not is_in_head(name, ("score",))}
    own = {name: weight for name, weight in get_peft_model_state_dict(model).items() if is_in_head(name, parts)}
    return own | weights

"""Go on from a trained adapter: its weights in place of new ones, and nothing else of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rankllm_core.card import load_card
from rankllm_core.errors import ConfigError

ADAPTER_NAME = "adapter_config.json"


def start_from_adapter(model: Any, folder: str) -> None:
    """Load the adapter in a folder into a model that has new ones of the same shape.

    Layers that the adapter does not have keep their new, idle adapters. Raises ConfigError where the folder holds no
    adapter, or one of another base, rank or scale, or of layers that the model does not adapt.
    """
    from peft import load_peft_weights, set_peft_model_state_dict

    where = f"lora.start_from: {folder}"
    if not (Path(folder) / ADAPTER_NAME).is_file():
        raise ConfigError(f"{where}: no adapter there ({ADAPTER_NAME} is missing)")
    settings = json.loads((Path(folder) / ADAPTER_NAME).read_text(encoding="utf-8"))
    mine = model.peft_config["default"]
    for key, name in (("r", "r"), ("lora_alpha", "alpha")):
        if settings[key] != getattr(mine, key):
            raise ConfigError(f"{where}: has {name} {settings[key]}, the recipe {getattr(mine, key)}; set lora.{name}")
    card = load_card(folder)
    base = mine.base_model_name_or_path
    theirs = card.base_model if card else None
    if theirs and base and Path(theirs).name != Path(base).name:
        raise ConfigError(f"{where}: was trained on {theirs}, the recipe says {base}")
    weights = load_peft_weights(folder, device="cpu")
    try:
        report = set_peft_model_state_dict(model, weights)
    except RuntimeError as error:
        shape = next((line.strip() for line in str(error).splitlines() if "size mismatch" in line), str(error)[:200])
        raise ConfigError(f"{where}: was trained on another base ({shape})") from None
    if report.unexpected_keys:
        name = report.unexpected_keys[0]
        raise ConfigError(f"{where}: adapts layers that the recipe does not, such as {name}; set lora.target_modules")

"""Export a trained adapter as a bundled one: bfloat16 weights, public name of its base, fusion weight.

The folder's README.md, the text of its model card, is written by hand and kept.

    uv run --package rankllm-infer python scripts/models/export_model.py --adapter models/pointwise \\
      --name smollm2-pointwise --fuse-weight 0.1
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click
import torch
from safetensors.torch import load_file, save_file

from rankllm_core.card import load_card, save_card
from rankllm_core.files import write_text
from rankllm_infer.checkpoints.hub import BASE_MODEL, SHIPPED

MODELS = Path(__file__).parents[2] / "packages/rankllm-infer/src/rankllm_infer/models"
KEPT = (
    "base_model_name_or_path",
    "bias",
    "fan_in_fan_out",
    "inference_mode",
    "lora_alpha",
    "lora_dropout",
    "peft_type",
)
"""Adapter settings kept in addition to rank, layers and task; the rest are defaults, which vary between PEFT
versions."""


@click.command()
@click.option(
    "--adapter", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the trained adapter."
)
@click.option("--name", required=True, type=click.Choice(list(SHIPPED.values())))
@click.option(
    "--fuse-weight",
    required=True,
    type=click.FloatRange(0, 1),
    help="Fusion weight, chosen with dev_scores.py; 0: no fusion.",
)
def main(adapter: Path, name: str, fuse_weight: float) -> None:
    """Write packages/rankllm-infer/src/rankllm_infer/models/NAME."""
    card = load_card(adapter)
    if card is None:
        raise click.ClickException(f"{adapter}: has no card")
    folder = MODELS / name
    folder.mkdir(parents=True, exist_ok=True)
    weights = load_file(adapter / "adapter_model.safetensors")
    halved = {key: weights[key].to(torch.bfloat16).contiguous() for key in sorted(weights)}
    save_file(halved, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    kept = {key: settings[key] for key in (*KEPT, "r", "target_modules", "task_type")}
    kept |= {"base_model_name_or_path": BASE_MODEL, "target_modules": sorted(kept["target_modules"])}
    with write_text(folder / "adapter_config.json") as stream:
        stream.write(json.dumps(kept, indent=2, sort_keys=True) + "\n")
    save_card(replace(card, base_model=BASE_MODEL, fuse_weight=fuse_weight), folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    click.echo(f"{folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

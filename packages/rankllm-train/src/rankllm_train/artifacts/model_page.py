"""README.md of a trained model: what it is, how to rerank with it and how it was trained. Replaces PEFT's blank
form."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path
from string import Template

import yaml

from rankllm_core.card import Card
from rankllm_core.files import write_text
from rankllm_train.models.base_names import base_name
from rankllm_train.recipe.recipe import Recipe

PAGE_NAME = "README.md"
TEMPLATE_NAME = "model_page.md"
"""Template of the page, in parts that each start with a line `%% NAME`."""
_TAG = "rankllm"
_PART, _END = "%% ", "\n"


def write_model_page(folder: str | Path, *, recipe: Recipe, card: Card) -> None:
    """Write the page into a model's folder, with the metadata header that model hubs read."""
    with write_text(Path(folder) / PAGE_NAME) as stream:
        stream.write(model_page(recipe, card))


def is_own_page(page: Path) -> bool:
    """Whether a README.md was written by a training run, so that a new one may replace it."""
    text = page.read_text(encoding="utf-8", errors="replace")
    return text.startswith("---\n") and f"\n- {_TAG}\n" in text.split("\n---\n", 1)[0]


def write_merged_page(folder: str | Path, *, recipe: Recipe | None, card: Card, base: str) -> None:
    """Write the page of an adapter merged into its base. recipe: the adapter's, if it was trained by rankllm."""
    with write_text(Path(folder) / PAGE_NAME) as stream:
        stream.write(model_page(recipe, card, merged_into=base))


def model_page(recipe: Recipe | None, card: Card, *, merged_into: str = "") -> str:
    """Return the page as Markdown. It names no licence, which is for the owner to choose.

    merged_into: the base of a merged adapter. Without a recipe, the page omits the training settings.
    """
    base = merged_into or (recipe.model.name_or_path if recipe else "")
    name = base_name(base)
    is_adapter = bool(recipe and recipe.lora.enabled and not merged_into)
    parts = ["page"]
    if is_adapter:
        parts.append("base on a hub" if "/" in name else "base in a folder")
    if recipe and recipe.model.trust_remote_code and not merged_into:
        # Whoever downloads the model should read what code it runs, and then knows which options allow it.
        parts.append("code of the base" if is_adapter else "code of the model")
    if recipe:
        parts.append("training")
    values = {
        "header": _header(base, card, is_adapter=is_adapter),
        "kind": card.kind,
        "what": "LoRA adapters" if is_adapter else "weights",
        "name": name,
        "merged": " with LoRA adapters merged in" if merged_into else "",
        "method": recipe.method if recipe else "",
        "facts": "\n".join(f"| {fact} | {value} |" for fact, value in _facts(recipe, card)) if recipe else "",
    }
    texts = _parts()
    return "".join(texts[part].substitute(values) for part in parts)


@cache
def _parts() -> dict[str, Template]:
    """Return the template's parts, with the line breaks around each."""
    text = (resources.files("rankllm_train") / "artifacts" / TEMPLATE_NAME).read_text(encoding="utf-8")
    parts = (part.split("\n", 1) for part in text.removeprefix(_PART).split(f"\n{_PART}"))
    return {name: Template(f"{body.removesuffix(_END)}{_END}") for name, body in parts}


def _header(base: str, card: Card, *, is_adapter: bool) -> str:
    """Return the YAML header that model hubs read."""
    name = base_name(base)
    header = {
        **({} if Path(base).is_dir() and "/" not in name else {"base_model": name}),  # a folder means nothing on a hub
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "text-ranking",
        "tags": [_TAG, "reranker", card.kind],
    }
    return yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=120)


def _facts(recipe: Recipe, card: Card) -> list[tuple[str, str]]:
    data, schedule, batch = recipe.data, recipe.schedule, recipe.batch
    length = f"up to {schedule.max_steps} steps" if schedule.max_steps else f"up to {schedule.num_epochs:g} epochs"
    rows = [
        ("training data", _without_folders(data.train)),
        ("dev data", _without_folders(data.eval)),
        ("prompt template", card.template.name),
        ("objective", recipe.objective_name),
        ("learning rate", f"{recipe.optim.learning_rate:g}, {schedule.lr_scheduler}"),
        ("length", f"{length}, {batch.per_device} x {batch.accumulation} records per step and process"),
        ("LoRA", f"rank {recipe.lora.r}, alpha {recipe.lora.alpha}" if recipe.lora.enabled else ""),
        ("started from", _without_folders(recipe.lora.start_from)),
    ]
    return [(name, value) for name, value in rows if value]


def _without_folders(path: str) -> str:
    """Return the last part of an absolute path, which is meaningless elsewhere; a relative one may belong to a
    project."""
    return Path(path).name if Path(path).is_absolute() else path

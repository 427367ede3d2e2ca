"""README.md of a trained model: what it is, how to rerank with it, what it was trained on. peft's is a form to fill."""

from __future__ import annotations

from pathlib import Path

import yaml

from rankllm_core.card import Card
from rankllm_core.files import write_text
from rankllm_train.models.base_names import base_name
from rankllm_train.recipe.recipe import RECIPE_NAME, Recipe

PAGE_NAME = "README.md"
_TAG = "rankllm"


def write_model_page(folder: str | Path, *, recipe: Recipe, card: Card) -> None:
    """Write the page into a model's folder, with the header that model hubs read."""
    with write_text(Path(folder) / PAGE_NAME) as stream:
        stream.write(model_page(recipe, card))


def is_own_page(page: Path) -> bool:
    """Whether a README.md is one of a trained model, which a new one may replace."""
    text = page.read_text(encoding="utf-8", errors="replace")
    return text.startswith("---\n") and f"\n- {_TAG}\n" in text.split("\n---\n", 1)[0]


def write_merged_page(folder: str | Path, *, recipe: Recipe | None, card: Card, base: str) -> None:
    """The same for an adapter that was merged into its base. recipe: the adapter's, where it has one of ours."""
    with write_text(Path(folder) / PAGE_NAME) as stream:
        stream.write(model_page(recipe, card, merged_into=base))


def model_page(recipe: Recipe | None, card: Card, *, merged_into: str = "") -> str:
    """The page as Markdown. A licence is the owner's to choose: none is named.

    merged_into: the base of a merged adapter. Without a recipe the page leaves out how it was trained.
    """
    base = merged_into or (recipe.model.name_or_path if recipe else "")
    name = base_name(base)
    is_adapter = bool(recipe and recipe.lora.enabled and not merged_into)
    what = "LoRA adapters" if is_adapter else "weights"
    merged = " with LoRA adapters merged in" if merged_into else ""
    header = {
        **({} if Path(base).is_dir() and "/" not in name else {"base_model": name}),  # a hub would not know a folder
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "text-ranking",
        "tags": [_TAG, "reranker", card.kind],
    }
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=False, allow_unicode=True, width=120) + "---",
        "",
        f"# A {card.kind} reranker",
        "",
        f"The {what} of {name}{merged}, fine-tuned with rankllm to reorder search results. `rankllm.yaml` says how it "
        "is prompted and read, so that inference needs no flags:",
        "",
        "```bash",
        "rankllm-infer rerank --model-path THIS_FOLDER --run first_stage.trec --queries queries.tsv \\",
        "  --corpus corpus.jsonl --output reranked.trec",
        "```",
        *(_about_base(name) if is_adapter else ()),
        *(_about_code(is_adapter=is_adapter) if recipe and recipe.model.trust_remote_code and not merged_into else ()),
        *(_about_training(recipe, card) if recipe else ()),
    ]
    return "\n".join(lines) + "\n"


def _about_base(name: str) -> list[str]:
    """Where the base comes from: adapters are nothing without it."""
    if "/" in name:
        found = "It is fetched from the hub; `--base-model FOLDER` names a copy of it."
    else:
        found = (
            "It is looked for in the folder where it was when the adapters were trained; on another machine, add "
            "`--base-model FOLDER_OR_NAME`."
        )
    return ["", f"The base model, {name}, is not in this folder. {found}"]


def _about_code(*, is_adapter: bool) -> list[str]:
    """Whoever downloads the model should read what it will run, and knows then which options allow it."""
    whose, where, more = (
        ("Its base model", "the base's folder", " --base-model FOLDER") if is_adapter else ("It", "this folder", "")
    )
    return [
        "",
        f"{whose} was trained with code of its own (`--trust-remote-code`), which runs with the permissions of whoever "
        f"uses it: read the `.py` files in {where}, then add `--trust-remote-code{more}`.",
    ]


def _about_training(recipe: Recipe, card: Card) -> list[str]:
    return [
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in _facts(recipe, card)),
        "",
        f"Every choice of the training is in `{RECIPE_NAME}`; "
        f"`train {recipe.method} --recipe {RECIPE_NAME} --output-dir NEW_FOLDER` repeats it.",
    ]


def _facts(recipe: Recipe, card: Card) -> list[tuple[str, str]]:
    data, schedule, batch = recipe.data, recipe.schedule, recipe.batch
    length = f"up to {schedule.max_steps} steps" if schedule.max_steps else f"up to {schedule.num_epochs:g} epochs"
    rows = [
        ("training data", _without_folders(data.train)),
        ("dev data", _without_folders(data.eval)),
        ("prompt template", card.template.name),
        ("objective", recipe.objective_name),
        ("learning rate", f"{recipe.optim.learning_rate:g}, {schedule.lr_scheduler}"),
        ("length", f"{length}, {batch.per_device} x {batch.accumulation} records a step and process"),
        ("LoRA", f"rank {recipe.lora.r}, alpha {recipe.lora.alpha}" if recipe.lora.enabled else ""),
        ("begun from", _without_folders(recipe.lora.start_from)),
    ]
    return [(name, value) for name, value in rows if value]


def _without_folders(path: str) -> str:
    """The last part of an absolute path, which says nothing elsewhere; a relative one may be part of a project."""
    return Path(path).name if Path(path).is_absolute() else path

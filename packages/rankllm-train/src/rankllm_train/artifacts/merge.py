"""Merge a LoRA adapter into its base model, card included."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from rankllm_core.card import CARD_NAME, Card, load_card, save_card
from rankllm_core.checkpoints.model_folder import check_settings_files, read_model_json, split_revision
from rankllm_core.checkpoints.weights import read_weight_headers
from rankllm_core.errors import ContractError, RankLLMError
from rankllm_core.files.manifest import check_intact
from rankllm_core.files.writing import follow_umask
from rankllm_core.nn.model_parts import readable_load
from rankllm_train.artifacts.checkpoints import aside
from rankllm_train.artifacts.model_page import write_merged_page
from rankllm_train.models.adapters import ADAPTER_NAME
from rankllm_train.models.base_names import base_name
from rankllm_train.recipe.recipe import RECIPE_NAME, load_recipe


def merge(adapter: str | Path, out: str | Path, *, base_model: str | None = None, dtype: str = "auto") -> Path:
    """Merge an adapter into its base model and write weights, tokenizer, card and model page to a new folder.

    base_model: replaces the base recorded in the adapter. dtype: of the merged weights, `auto` for the base's; the sum
    is computed in float32 in any case.
    Raises RankLLMError if the adapter or its card is missing or damaged, ContractError if the base does not match.
    """
    adapter, out = Path(adapter), Path(out)
    settings, card = _read(adapter)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RankLLMError(f"{out}: already exists; give the name of a new folder")
    base = base_model or str(settings.get("base_model_name_or_path"))
    if card.base_model and base_model is None and Path(card.base_model).name != Path(base_name(base)).name:
        raise ContractError(
            f"{adapter}: the card names the base model {card.base_model!r}, but {ADAPTER_NAME} names {base!r}; "
            "choose one with --base-model"
        )
    if base_model is None and Path(base).is_absolute() and not Path(base).is_dir():
        raise RankLLMError(
            f"{adapter}: its base model {base} is not on this machine; give its location or its hub name with "
            "--base-model"
        )
    model, tokenizer = _merged(adapter, base, settings, dtype)
    folder = aside(out.parent, out.name)
    shutil.rmtree(folder, ignore_errors=True)  # left by an interrupted merge
    out.parent.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_card(replace(card, base_model=None), folder)
    recipe = load_recipe(adapter / RECIPE_NAME) if (adapter / RECIPE_NAME).is_file() else None
    if recipe is not None:
        shutil.copyfile(adapter / RECIPE_NAME, folder / RECIPE_NAME)
    write_merged_page(folder, recipe=recipe, card=card, base=base)
    follow_umask(folder)
    if out.exists():
        out.rmdir()
    folder.rename(out)
    return out


def _read(adapter: Path) -> tuple[dict[str, Any], Card]:
    settings = read_model_json(adapter / ADAPTER_NAME) if adapter.is_dir() else None
    if settings is None:
        raise RankLLMError(
            f"{adapter}: expected a LoRA adapter, but {ADAPTER_NAME} is missing; a full model needs no merging"
        )
    card = load_card(adapter)
    if card is None:
        raise RankLLMError(f"{adapter}: {CARD_NAME} is missing, so the prompt format is unknown; restore the card")
    check_settings_files(adapter)
    read_weight_headers(adapter)
    check_intact(adapter)
    return settings, card


def _merged(adapter: Path, base: str, settings: dict[str, Any], dtype: str) -> tuple[Any, Any]:
    from peft import PeftModel
    from transformers import AutoTokenizer

    from rankllm_core.nn.model_parts import fast_tokenizer_options, quiet_transformers, untie_changed
    from rankllm_train.models.loading import readable_failures

    with quiet_transformers():
        with readable_failures(base):
            model, own, missing = _load_base(base, is_classifier=settings.get("task_type") == "SEQ_CLS")
        _check_brought(adapter, base, missing)
        is_kept_tied = bool(settings.get("ensure_weight_tying"))
        untie_changed(model, _changed(adapter, settings), adapter=adapter, is_kept_tied=is_kept_tied)
        try:
            with readable_load(adapter, problem="the adapter cannot be loaded"):
                merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        except ContractError as error:
            shape = next((line.strip() for line in str(error.__cause__).splitlines() if "size mismatch" in line), "")
            raise ContractError(
                f"{adapter}: the adapter was trained on a different base model than {base} ({shape})"
            ) from None
        # Published adapters often have no tokenizer; the base's is used then.
        has_tokenizer = any((adapter / name).exists() for name in ("tokenizer.json", "tokenizer_config.json"))
        source = str(adapter) if has_tokenizer else base
        with readable_failures(source):
            name, revision = split_revision(source)
            options = {"revision": revision, "trust_remote_code": False, **fast_tokenizer_options()}
            tokenizer = AutoTokenizer.from_pretrained(name, **options)
    return merged.to(_torch_dtype(dtype) or own), tokenizer


def _load_base(base: str, *, is_classifier: bool) -> tuple[Any, Any, set[str]]:
    """Return the base model in float32, its original dtype, and the names of missing weights, which are random."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from rankllm_train.models.heads import is_encoder_model, save_by_present_names

    if Path(base).is_dir():
        check_settings_files(base)
        if (Path(base) / ADAPTER_NAME).exists():
            raise ContractError(f"{base}: is itself an adapter; merge it first, and give the result as the base")
        read_weight_headers(base)
        check_intact(base)
    name, revision = split_revision(base)
    options = {"dtype": "auto", "revision": revision, "trust_remote_code": False, "output_loading_info": True}
    if is_classifier:
        model, report = AutoModelForSequenceClassification.from_pretrained(name, num_labels=1, **options)
        if is_encoder_model(model):
            save_by_present_names(model)
    else:
        model, report = AutoModelForCausalLM.from_pretrained(name, **options)
    own = model.dtype
    return model.to(torch.float32), own, set(report["missing_keys"])


def _check_brought(adapter: Path, base: str, missing: set[str]) -> None:
    """Raise ContractError if weights, such as those of a head, are in neither the base nor the adapter."""
    held = read_weight_headers(adapter)
    absent = sorted(name for name in missing if f"base_model.model.{name}" not in held)
    # Tensors in a pickle are not listed; PEFT reads them.
    if held and absent:
        raise ContractError(
            f"{adapter}: contains no {absent[0]}, and neither does its base {base}; the merged weights would be "
            "random. Train the adapter again, or give its original base with --base-model"
        )


def _torch_dtype(name: str) -> Any:
    """Return a torch dtype by name; None for `auto`."""
    import torch

    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}.get(name)


def _changed(adapter: Path, settings: dict[str, Any]) -> list[str]:
    """Names of an adapter's tensors and of the layers in its settings, since tensors in pickles are not inspected."""
    named = list(read_weight_headers(adapter))
    for key in ("target_modules", "modules_to_save"):
        value = settings.get(key) or []
        named += [value] if isinstance(value, str) else map(str, value)
    return named

"""Merge a LoRA adapter into its base model, card included."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rankllm_core.card import CARD_NAME, Card, load_card, save_card
from rankllm_core.errors import ContractError, RankLLMError
from rankllm_core.load_failures import readable_load
from rankllm_core.model_folder import check_settings_files, read_weight_headers
from rankllm_core.model_json import read_model_json
from rankllm_train.adapters import ADAPTER_NAME
from rankllm_train.checkpoints import aside


def merge(adapter: str | Path, out: str | Path, *, base_model: str | None = None, dtype: str = "float32") -> Path:
    """Write the adapter's base with the adapter in its weights, tokenizer and card, to a folder that must be new.

    base_model: in place of the one that the adapter names. dtype: of the merged weights; they are added in float32.
    Raises RankLLMError where the adapter or its card is missing, and ContractError where the base is another.
    """
    import torch

    adapter, out = Path(adapter), Path(out)
    settings, card = _read(adapter)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RankLLMError(f"{out}: exists; give the name of a new folder")
    base = base_model or str(settings.get("base_model_name_or_path"))
    if card.base_model and base_model is None and Path(card.base_model).name != Path(base).name:
        raise ContractError(
            f"{adapter}: the card names the base model {card.base_model!r}, {ADAPTER_NAME} {base!r}; say which with "
            "--base-model"
        )
    model, tokenizer = _merged(adapter, base, settings)
    model.to({"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype])
    folder = aside(out.parent, out.name)
    out.parent.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_card(replace(card, base_model=None), folder)
    if out.exists():
        out.rmdir()
    folder.rename(out)
    return out


def _read(adapter: Path) -> tuple[dict[str, Any], Card]:
    if not (adapter / ADAPTER_NAME).exists():
        raise RankLLMError(f"{adapter}: no adapter there ({ADAPTER_NAME} is missing); a full model needs no merging")
    card = load_card(adapter)
    if card is None:
        raise RankLLMError(f"{adapter}: no card there ({CARD_NAME} is missing), so nobody would know how to prompt it")
    check_settings_files(adapter)
    read_weight_headers(adapter)
    return read_model_json(adapter / ADAPTER_NAME) or {}, card


def _merged(adapter: Path, base: str, settings: dict[str, Any]) -> tuple[Any, Any]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from rankllm_train.models import quiet, readable_failures

    if Path(base).is_dir():
        check_settings_files(base)
        read_weight_headers(base)
    with quiet():
        with readable_failures(base):
            if settings.get("task_type") == "SEQ_CLS":
                model = AutoModelForSequenceClassification.from_pretrained(
                    base, num_labels=1, dtype=torch.float32, trust_remote_code=False
                )
            else:
                model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=False)
        with readable_load(adapter, problem="the adapter cannot be loaded"):
            try:
                merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
            except RuntimeError as error:
                shape = next((line.strip() for line in str(error).splitlines() if "size mismatch" in line), "")
                if not shape:
                    raise
                raise ContractError(
                    f"{adapter}: the adapter was trained on another base than {base} ({shape})"
                ) from None
        # Published adapters often come without a tokenizer: then it is the base's.
        has_tokenizer = any((adapter / name).exists() for name in ("tokenizer.json", "tokenizer_config.json"))
        source = str(adapter) if has_tokenizer else base
        with readable_failures(source):
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    return merged, tokenizer

"""Load a LoRA adapter onto its base and merge it: the layers, and a score head that comes with the adapter."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch

from rankllm_core.errors import ContractError, RankLLMError
from rankllm_core.nn.model_parts import readable_load, untie_changed
from rankllm_infer.checkpoints.model_files import ModelFolder

HEAD_NAMES = ("score.weight", "classifier.weight")
_PEFT_PREFIX = "base_model.model."


def merge_adapter(model: Any, own: ModelFolder, *, has_head: bool) -> Any:
    """Return the base with the adapter merged into it, including a score head.

    own: the adapter's folder. has_head: True if the adapter must contain a score head. Raises ContractError if the
    adapter lacks that head, was trained on another base, or changes tied weights but keeps them tied.
    """
    adapter = str(own.path)
    weights = _adapter_weights(adapter)
    head = _head_of(weights, adapter) if has_head else None
    is_kept_tied = bool((own.adapter or {}).get("ensure_weight_tying"))
    untie_changed(model, weights, adapter=adapter, is_kept_tied=is_kept_tied)
    merged = _merged(model, weights, adapter)
    if head is not None:
        if head.shape != merged.score.weight.shape:
            raise ContractError(f"{adapter}: its head returns {len(head)} scores per passage, expected one")
        # Adapters saved by old PEFT versions contain the head without naming it in modules_to_save.
        with torch.no_grad():
            merged.score.weight.copy_(head)
    return merged


def merge_encoder_adapter(model: Any, own: ModelFolder, *, fresh: Collection[str]) -> Any:
    """Return an encoder with the adapter merged into it, including full layers saved with the adapter, such as its
    head.

    own: the adapter's folder. fresh: weights of the model missing from its own checkpoint. Raises ContractError if the
    adapter does not contain them either, returns more than one score, or was trained on another base.
    """
    adapter = str(own.path)
    weights = _adapter_weights(adapter)
    whole = {
        name.removeprefix(_PEFT_PREFIX): weight
        for name, weight in weights.items()
        if ".lora_" not in name and "trainable_tokens" not in name
    }
    places = dict(model.named_parameters())
    if absent := sorted(set(fresh) - whole.keys()):
        part = "pooler" if ".pooler." in absent[0] else absent[0].partition(".")[0]
        raise ContractError(
            f"{adapter}: neither the adapter nor its base contains {absent[0]}; scores would be random. Save it "
            f"with modules_to_save=['{part}']"
        )
    for name, weight in whole.items():
        place = places.get(name)
        if place is not None and place.shape[0] == 1 != weight.shape[0]:
            raise ContractError(f"{adapter}: its head returns {len(weight)} labels per passage, expected one score")
        if place is None and not name.startswith(f"{model.base_model_prefix}."):
            raise ContractError(
                f"{adapter}: the adapter was trained on another base model: only the adapter has {name}"
            )
    merged = _merged(model, weights, adapter)
    # PEFT only loads layers named by modules_to_save or the task, not everything in the file.
    with torch.no_grad():
        for name, weight in whole.items():
            if name in places:
                merged.get_parameter(name).copy_(weight)
    return merged


def _merged(model: Any, weights: Mapping[str, torch.Tensor], adapter: str) -> Any:
    from peft import PeftModel

    with (
        readable_load(adapter, problem="the adapter cannot be loaded"),
        readable_misfits(f"{adapter}: the adapter was trained on another base model"),
    ):
        attached = PeftModel.from_pretrained(model, adapter)
    _check_layers(attached, weights, adapter)
    with readable_load(adapter, problem="the adapter cannot be loaded"):
        return attached.merge_and_unload()


def _head_of(weights: Mapping[str, torch.Tensor], adapter: str) -> torch.Tensor:
    names = [name for name in weights if name.endswith(HEAD_NAMES)]
    if not names:
        raise ContractError(
            f"{adapter}: the adapter contains no score head (score.weight); its scores would be random. "
            "Save it with modules_to_save=['score']"
        )
    return weights[names[0]]


def _adapter_weights(adapter: str) -> Mapping[str, torch.Tensor]:
    """Return an adapter's tensors by name. Raises RankLLMError if its file contains anything else."""
    from peft.utils import load_peft_weights

    with readable_load(adapter, problem="the adapter cannot be loaded"):
        weights = load_peft_weights(adapter, device="cpu")
    if not isinstance(weights, Mapping) or not all(isinstance(weight, torch.Tensor) for weight in weights.values()):
        raise RankLLMError(f"{adapter}: the adapter cannot be loaded (its file contains something other than tensors)")
    return weights


def _check_layers(attached: Any, weights: Mapping[str, torch.Tensor], adapter: str) -> None:
    """Check that adapter and base have the same layers: PEFT ignores unmatched weights and leaves unmatched layers
    empty."""
    from peft import get_peft_model_state_dict

    places = {name for name in get_peft_model_state_dict(attached, save_embedding_layers=False) if ".lora_" in name}
    found = {name for name in weights if ".lora_" in name}
    if odd := sorted(places ^ found):
        side = "the adapter" if odd[0] in found else "the base model"
        raise ContractError(f"{adapter}: the adapter was trained on another base model: only {side} has {odd[0]}")


@contextlib.contextmanager
def readable_misfits(message: str) -> Iterator[None]:
    """Convert an error about mismatched weight shapes to one line."""
    try:
        yield
    except RuntimeError as error:
        if "mismatch" not in str(error):
            raise
        shapes = next((line.strip() for line in str(error).splitlines() if "size mismatch" in line), "")
        raise ContractError(f"{message} ({shapes})" if shapes else message) from None

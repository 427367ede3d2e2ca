"""Loading with transformers: quietly, with tokenizers of one interface; a model's backbone, and its tied weights."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from rankllm_core.errors import ContractError

_TIED = {"lm_head", "embed_tokens"}
"""Layers whose weights are one matrix in many models."""


@contextlib.contextmanager
def quiet_transformers(*, hide_warnings: bool = False) -> Iterator[None]:
    """Keep transformers' notes about loading off the user's screen; errors stay.

    hide_warnings: also those of torch, PEFT and transformers, where what is wrong with a checkpoint is checked here.
    """
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # peft asks for an attribute that transformers has renamed; nobody else can do anything about it.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            if hide_warnings:
                warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|peft|transformers)\.")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        transformers_logging.enable_progress_bar()


def fast_tokenizer_options() -> dict[str, Any]:
    """Return options for AutoTokenizer that keep it to tokenizer.json.

    With mistral_common installed it prefers a tekken.json, and gives a tokenizer without chat templates as text and
    without the interface that prompts are checked through.
    """
    has_option = importlib.util.find_spec("transformers.integrations.mistral.tokenizer") is not None
    return {"mistral_format": False} if has_option else {}


def backbone_of(model: Any) -> Any:
    """Return the model without its head. Its name is `base_model_prefix`, but not in every family (Llama 4).

    Raises ContractError where there is none.
    """
    for name in (model.base_model_prefix, "model", "transformer", "backbone"):
        if name and isinstance(backbone := getattr(model, name, None), torch.nn.Module):
            return backbone
    if isinstance(decoder := getattr(model, "get_decoder", lambda: None)(), torch.nn.Module) and decoder is not model:
        return decoder
    raise ContractError(f"{type(model).__name__} has no backbone apart from its head, so it cannot be run here")


def untie_changed(model: Any, changed: Iterable[str], *, adapter: str | Path, is_kept_tied: bool) -> None:
    """Give the head weights of its own where an adapter changes the head or the embeddings, and they are one matrix.

    Merged into it, the adapter would change both, and the model would compute another function than was trained.
    changed: names of the adapter's tensors or layers. Trainable tokens do not count: on tied weights PEFT changes head
    and embeddings alike. adapter: its folder, for messages.
    is_kept_tied: whether it was trained with `ensure_weight_tying`. Raises ContractError then: no merging keeps that.
    """
    head = model.get_output_embeddings()
    parts = {part for name in changed if "trainable_tokens" not in name for part in name.split(".")}
    if head is None or head.weight is not model.get_input_embeddings().weight or not parts & _TIED:
        return
    if is_kept_tied:
        raise ContractError(
            f"{adapter}: adapts tied embeddings and head with ensure_weight_tying, which cannot be merged; train it "
            "without ensure_weight_tying"
        )
    head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False
    model.config.get_text_config().tie_word_embeddings = False

"""Forward pass that computes only what a loss reads.

It is bound to the innermost model, so that wrappers (PEFT, data parallel, DeepSpeed) work as usual.
Shapes: B rows, T tokens, D hidden, V vocabulary, N read ids, L label positions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from rankllm_core.errors import ContractError
from rankllm_core.nn.model_parts import backbone_of
from rankllm_train.training.losses import IGNORED_LABEL

_PROBE_TOKENS = 5
_PROBE_TOLERANCE = 1e-3


def make_lean(model: Any) -> None:
    """Bind a forward pass that computes logits only at label positions and one position per row, or scores.

    It takes right-padded `input_ids` and optionally `labels` (shifted), `read_positions` and `read_ids`, and returns
    `token_logits` (L, V) and `read_logits` (B, N), or `scores` (B,), the last two in float32.
    """
    is_classifier = hasattr(model, "score")
    if not is_classifier and model.get_output_embeddings() is None:
        raise ContractError(
            f"{type(model).__name__} has no language-model head whose logits can be computed by position"
        )
    model.forward = MethodType(_score_rows if is_classifier else _read_logits, model)


def check_lean(model: Any) -> None:
    """Compare the lean forward pass with the model's own on a few tokens.

    Raises ContractError if they differ (the model transforms its logits after the head, by softcapping or scaling), or
    if the model's logits are not finite.
    """
    ids = torch.arange(1, _PROBE_TOKENS + 1, device=model.device)[None] % model.config.vocab_size
    last = torch.tensor([_PROBE_TOKENS - 1], device=model.device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        if hasattr(model, "score"):
            lean = model(input_ids=ids, read_positions=last)["scores"]
            own = type(model).forward(model, input_ids=ids, use_cache=False).logits[0].float()
        else:
            wanted = torch.tensor([[0, 1]], device=model.device)
            lean = model(input_ids=ids, read_positions=last, read_ids=wanted)["read_logits"][0]
            own = type(model).forward(model, input_ids=ids, use_cache=False).logits[0, -1, :2].float()
    model.train(was_training)
    if not bool(own.isfinite().all()):
        raise ContractError(
            f"{model.config.name_or_path}: the weights give logits that are not finite; copy them again"
        )
    scale = own.abs().max().clamp(min=1)
    tolerance = _PROBE_TOLERANCE if model.dtype == torch.float32 else 0.05
    if not bool(((lean - own).abs() <= tolerance * scale).all()):
        raise ContractError(
            f"{type(model).__name__} transforms its logits after the head (softcapping or scaling); "
            "training such models is not supported"
        )


def is_zero3_sharded(model: Any) -> bool:
    """Whether the weights are sharded across processes (ZeRO-3), and only present while their module runs."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


@contextlib.contextmanager
def head_alone(model: Any) -> Iterator[None]:
    """Under ZeRO-3, before DeepSpeed wraps the model: run with gathered head weights and artificial hidden states."""
    import deepspeed
    from transformers.modeling_outputs import BaseModelOutputWithPast

    backbone = backbone_of(model)
    head = model.score if hasattr(model, "score") else model.get_output_embeddings()
    shape = (1, _PROBE_TOKENS, model.config.get_text_config().hidden_size)
    hidden_BTD = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(model.device, model.dtype)
    backbone.forward = lambda *arguments, **options: BaseModelOutputWithPast(last_hidden_state=hidden_BTD)
    try:
        with deepspeed.zero.GatheredParameters(list(head.parameters())):
            yield
    finally:
        del backbone.forward


def _backbone(model: Any, input_ids: Tensor) -> Tensor:
    backbone = backbone_of(model)
    hidden_BTD: Tensor = backbone(input_ids=input_ids, use_cache=False).last_hidden_state
    return hidden_BTD


def _read_logits(
    self: Any,
    input_ids: Tensor,
    labels: Tensor | None = None,
    read_positions: Tensor | None = None,
    read_ids: Tensor | None = None,
    **ignored: object,  # arguments that PEFT passes along, such as mask and embeddings
) -> dict[str, Tensor]:
    hidden_BTD = _backbone(self, input_ids)
    head = self.get_output_embeddings()
    out: dict[str, Tensor] = {}
    if labels is not None:
        out["token_logits"] = head(hidden_BTD[labels != IGNORED_LABEL])
    if read_positions is not None and read_ids is not None:
        hidden_BD = hidden_BTD[torch.arange(len(input_ids), device=input_ids.device), read_positions]
        out["read_logits"] = _rows_of_head(head, hidden_BD, read_ids)
    return out


def _rows_of_head(head: Any, hidden_BD: Tensor, ids_BN: Tensor) -> Tensor:
    """Return logits_BN of these ids only, in float32: in bf16, close identifiers would tie."""
    if type(head) is not nn.Linear or hasattr(head.weight, "ds_id"):
        # The layer is adapted, or its weight is sharded until the module runs (ZeRO-3).
        logits_BN: Tensor = head(hidden_BD).gather(1, ids_BN).float()
        return logits_BN
    with torch.autocast(hidden_BD.device.type, enabled=False):
        logits_BN = torch.einsum("bd,bnd->bn", hidden_BD.float(), head.weight[ids_BN].float())
        return logits_BN if head.bias is None else logits_BN + head.bias[ids_BN].float()


def _score_rows(self: Any, input_ids: Tensor, read_positions: Tensor, **ignored: object) -> dict[str, Tensor]:
    hidden_BTD = _backbone(self, input_ids)
    hidden_BD = hidden_BTD[torch.arange(len(input_ids), device=input_ids.device), read_positions]
    with torch.autocast(hidden_BD.device.type, enabled=False):
        head_dtype = next(self.score.parameters()).dtype
        scores_B: Tensor = self.score(hidden_BD.to(head_dtype))[:, 0].float()
    return {"scores": scores_B}

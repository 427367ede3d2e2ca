"""Linear layers on a CPU whose weights are stored in oneDNN's order.

Passages are only a few dozen tokens long, so reordering the weights for each product would take a tenth of the time in
bfloat16. In float32, where torch uses another library for matrix products, these layers take up to a fifth less time.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from torch import Tensor

_X86 = ("x86_64", "AMD64")
_TYPICAL_TOKENS = 256
"""The order suits any number of tokens, but oneDNN needs one to be specified."""


def pack_weights(model: Any) -> None:
    """Reorder the weights of a model's layers if oneDNN multiplies them fast; they can then no longer be trained."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    if model.device.type != "cpu" or not _has_products(model.dtype):
        return
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        linears = [name for name, module in layer.named_modules() if type(module) is torch.nn.Linear]
        for name in linears:
            layer.set_submodule(name, PackedLinear(layer.get_submodule(name)))


def _has_products(dtype: torch.dtype) -> bool:
    """Return whether oneDNN multiplies matrices of this dtype at full speed on this machine."""
    if platform.machine() not in _X86 or not torch.backends.mkldnn.is_available():
        return False
    # The operator that `torch.compile` uses for linear layers with constant weights.
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PackedLinear(torch.nn.Module):
    """Linear layer whose weights are in oneDNN's order."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _TYPICAL_TOKENS)
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, states: Tensor) -> Tensor:
        """Return the product with the weights plus the bias. states: their last dimension is the layer's input."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(states, self._weight, self._bias, "none", [], "")
        return product

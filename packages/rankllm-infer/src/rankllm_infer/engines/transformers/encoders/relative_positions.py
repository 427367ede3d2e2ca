"""DeBERTa-v2 and v3 project the embeddings of relative positions in every layer of every pass: here, once a model.

They are as many as a pass of 512 tokens, and the same whatever is read: a short pair read alone would spend more time
on them than on itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_PROJECTIONS = ("query_proj", "key_proj", "pos_query_proj", "pos_key_proj")
"""The layers of an attention that are given the positions, some of them the tokens too."""


def project_positions_once(model: Any) -> None:
    """Let a DeBERTa-v2 on one device keep the projections of its relative positions; leave any other model."""
    is_known = model.config.model_type == "deberta-v2" and type(model).__module__.startswith("transformers.")
    if not is_known or not model.config.relative_attention or hasattr(model, "hf_device_map"):
        return
    encoder = model.deberta.encoder
    with torch.no_grad():
        positions_SD = encoder.get_rel_embedding().detach().clone()
    encoder.get_rel_embedding = lambda: positions_SD
    for layer in encoder.layer:
        attention = layer.attention.self
        for name in _PROJECTIONS:
            if (linear := getattr(attention, name, None)) is not None:
                setattr(attention, name, _Remembering(linear, positions_SD))


class _Remembering(torch.nn.Module):
    """A linear layer that multiplies the embeddings of relative positions once.

    positions_SD: the tensor that the model takes them from. It is kept, so that nothing else has its address.
    """

    def __init__(self, linear: torch.nn.Module, positions_SD: Tensor) -> None:
        super().__init__()
        self._linear = linear
        self._positions_SD = positions_SD
        self._products: dict[torch.Size, Tensor] = {}

    def forward(self, states: Tensor) -> Tensor:
        """The layer's product. states: tokens, or the first of the positions."""
        if states.data_ptr() != self._positions_SD.data_ptr():
            product: Tensor = self._linear(states)
            return product
        if states.shape not in self._products:
            self._products[states.shape] = self._linear(states)
        return self._products[states.shape]

"""Cache the projections of DeBERTa-v2/v3's relative positions, which it otherwise recomputes in every layer and pass.

They cost as much as a pass of 512 tokens and do not depend on the input: a short pair read alone would spend more time
on them than on itself.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_PROJECTIONS = ("query_proj", "key_proj", "pos_query_proj", "pos_key_proj")
"""Layers of the attention that process the positions, some of them also the tokens."""


def project_positions_once(model: Any) -> None:
    """Cache the projected relative positions of a DeBERTa-v2 on one device; leave other models unchanged."""
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
    """Linear layer that multiplies the embeddings of relative positions only once.

    positions_SD: tensor that holds the embeddings. Keeping a reference prevents its address from being reused.
    """

    def __init__(self, linear: torch.nn.Module, positions_SD: Tensor) -> None:
        super().__init__()
        self._linear = linear
        self._positions_SD = positions_SD
        self._products: dict[torch.Size, Tensor] = {}

    def forward(self, states: Tensor) -> Tensor:
        """Return the layer's product. states: tokens, or the first of the positions."""
        if states.data_ptr() != self._positions_SD.data_ptr():
            product: Tensor = self._linear(states)
            return product
        if states.shape not in self._products:
            self._products[states.shape] = self._linear(states)
        return self._products[states.shape]

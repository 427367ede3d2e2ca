"""Decoders with bidirectional attention, loaded as transformers' own architectures and run without padding if possible.

Shapes: B rows of at most L tokens each, T tokens of a pack, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from rankllm_core.errors import ContractError
from rankllm_core.nn.model_parts import backbone_of, quiet_transformers, readable_load
from rankllm_infer.checkpoints.bidirectional import Bidirectional
from rankllm_infer.checkpoints.model_files import ModelFolder
from rankllm_infer.engines.transformers.encoders.encoder_attention import ROWS_ATTENTION, use_rows_attention
from rankllm_infer.engines.transformers.encoders.packed_weights import pack_weights
from rankllm_infer.engines.transformers.model import choose_attention
from rankllm_infer.engines.transformers.packing import FLASH_ATTENTIONS

_N_TRIED_TOKENS = 8


def bidirectional_config(folder: ModelFolder, reading: Bidirectional) -> Any:
    """Return transformers' configuration of a checkpoint, with one label and bidirectional attention.

    Raises ContractError if its weights are quantized.
    """
    from transformers import AutoConfig, PretrainedConfig

    source = folder.path
    if folder.is_quantized:
        raise ContractError(
            f"{folder.name}: its weights are quantized; bidirectional attention needs unquantized weights"
        )
    with readable_load(source):
        values, _ = PretrainedConfig.get_config_dict(str(source))
        kept = {key: value for key, value in values.items() if key not in ("auto_map", "model_type", "architectures")}
        config = AutoConfig.for_model(reading.architecture, **kept)
    config.is_causal, config.num_labels = False, 1
    return config


def ready_bidirectional(model: Any, asked: str) -> None:
    """Switch a loaded model to bidirectional attention.

    asked: as in `choose_attention`, but auto on a CPU is the attention of packed rows.
    """
    for module in model.modules():
        # Attention without a mask depends on this flag; masks depend on the configuration.
        if getattr(module, "is_causal", None) is True:
            module.is_causal = False
    if asked != "auto" or model.device.type != "cpu":
        choose_attention(model, asked)
    else:
        use_rows_attention(model)
    pack_weights(model)


class BidirectionalDecoder:
    """Scores rows of ids with a bidirectional decoder and a head over its pooled states."""

    def __init__(self, model: Any, reading: Bidirectional) -> None:
        self._model = model
        self._backbone = backbone_of(model)
        self._reading = reading
        self.positions = int(model.config.max_position_embeddings)
        """Maximum number of tokens per row."""
        attention = str(model.config._attn_implementation)
        self._is_packed = not hasattr(model, "hf_device_map") and attention in (ROWS_ATTENTION, *FLASH_ATTENTIONS)
        self._is_flash = attention in FLASH_ATTENTIONS

    def scores(self, rows: Sequence[Sequence[int]], n_first: Sequence[int]) -> Tensor:
        """Return scores_B in float32. rows: ids, none empty. n_first: ignored, since decoders have no token types."""
        states = self._packed(rows) if self._is_packed else self._padded(rows)
        pooled_BD = torch.stack([self._pool(states_LD) for states_LD in states])
        weight_D = self._model.score.weight[0].float().to(pooled_BD.device)
        # Accumulated in float32: in bfloat16, the scores of similar passages would tie.
        return pooled_BD @ weight_D / self._reading.temperature

    def try_it(self, source: str) -> None:
        """Raise RankLLMError in one line if the model cannot be run. source: name of the model, for messages."""
        n_embeddings = int(self._model.get_input_embeddings().weight.shape[0])
        row = [token % n_embeddings for token in range(1, _N_TRIED_TOKENS + 1)]
        problem = f"{type(self._model).__name__} cannot be run"
        with readable_load(source, problem=problem), quiet_transformers(hide_warnings=True), torch.inference_mode():
            self.scores([row], [0])

    def _pool(self, states_LD: Tensor) -> Tensor:
        match self._reading.pooling:
            case "mean":
                return states_LD.float().mean(0)
            case "first":
                return states_LD[0].float()
            case "last":
                return states_LD[-1].float()
        raise ValueError(self._reading.pooling)

    def _packed(self, rows: Sequence[Sequence[int]]) -> Sequence[Tensor]:
        lengths = [len(row) for row in rows]
        ends = list(accumulate(lengths))
        device = self._model.device
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor([[token for row in rows for token in row]], device=device),
            "position_ids": torch.cat([torch.arange(n) for n in lengths])[None].to(device),
            "use_cache": False,
        }
        if self._is_flash:
            bounds = torch.tensor([0, *ends], dtype=torch.int32, device=device)
            inputs |= {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds}
            inputs |= {"max_length_q": max(lengths), "max_length_k": max(lengths)}
        else:
            # Never read, but must be present: otherwise transformers would build a mask over all tokens.
            inputs |= {"row_ends": ends, "attention_mask": torch.zeros(1, 1, 1, 1, device=device)}
        hidden_TD = self._backbone(**inputs).last_hidden_state[0]
        states: Sequence[Tensor] = hidden_TD.split(lengths)
        return states

    def _padded(self, rows: Sequence[Sequence[int]]) -> Sequence[Tensor]:
        lengths = [len(row) for row in rows]
        longest = max(lengths)
        device = self._model.device
        padded = [[*row, *[0] * (longest - len(row))] for row in rows]
        mask = [[1] * n + [0] * (longest - n) for n in lengths]
        inputs = {"input_ids": torch.tensor(padded, device=device), "attention_mask": torch.tensor(mask, device=device)}
        hidden_BLD = self._backbone(**inputs, use_cache=False).last_hidden_state
        return [states_LD[:n] for states_LD, n in zip(hidden_BLD, lengths, strict=True)]

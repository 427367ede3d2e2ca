"""Encoders with a sequence-classification head, loaded completely and run without padding if possible.

BERT, RoBERTa and ModernBERT support packed rows on a CPU (`encoder_attention`), and with flash-attention 2 on a GPU.
Other encoders, and other attention implementations, get padded rows with an attention mask. Either way, the head's last
layer runs in float32: in bfloat16, the scores of similar passages would tie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rankllm_core.checkpoints.encoders import encoder_positions, first_position
from rankllm_core.checkpoints.head_modules import ModuleHead, module_head
from rankllm_core.checkpoints.weights import read_weight_headers
from rankllm_core.errors import ContractError
from rankllm_core.nn.model_parts import backbone_of, quiet_transformers, readable_load
from rankllm_infer.checkpoints.model_files import ModelFolder
from rankllm_infer.engines.transformers.adapters import merge_encoder_adapter, readable_misfits
from rankllm_infer.engines.transformers.encoders.encoder_attention import ROWS_ATTENTION, use_rows_attention
from rankllm_infer.engines.transformers.encoders.packed_weights import pack_weights
from rankllm_infer.engines.transformers.encoders.relative_positions import project_positions_once
from rankllm_infer.engines.transformers.model import ExactRows, choose_attention
from rankllm_infer.engines.transformers.packing import FLASH_ATTENTIONS

Packing = Literal["rows", "flash"]
"""`rows`: with `encoder_attention`; `flash`: with the cumulative lengths that flash-attention accepts."""

_N_TRIED_TOKENS = 8


def load_encoder(source: Path, options: dict[str, Any], *, adapter: ModelFolder | None = None) -> Any:
    """Load an encoder with its classification head. options: for `from_pretrained`.

    adapter: merged into the encoder, and may contain the head. Raises ContractError if the head is missing or returns
    more than one score, or if any weight is missing.
    """
    from transformers import AutoModelForSequenceClassification

    labels = {} if adapter is None else {"num_labels": 1}
    with (
        readable_load(source),
        readable_misfits(f"{source}: the weights do not fit an encoder with one score per passage"),
    ):
        model, report = AutoModelForSequenceClassification.from_pretrained(
            str(source), **labels, output_loading_info=True, **options
        )
    if adapter is not None:
        layers = [name for name in report["missing_keys"] if _is_in_backbone(model, name) and ".pooler." not in name]
        _check_complete(model, layers, source)
        model = merge_encoder_adapter(model, adapter, fresh=report["missing_keys"])
        _read_in_float32(model, source)
        return model
    head = None if "classifier.weight" not in report["missing_keys"] else module_head(source)
    if head is not None:
        _load_module_head(model, head)
        report["missing_keys"] -= {name for name in report["missing_keys"] if name.startswith(("head.", "classifier."))}
    if model.config.num_labels != 1:
        raise ContractError(
            f"{source}: its head returns {model.config.num_labels} labels per passage, expected one score"
        )
    _check_complete(model, report["missing_keys"], source)
    _read_in_float32(model, source)
    return model


def _check_complete(model: Any, missing_keys: Iterable[str], source: Path) -> None:
    """Raise ContractError if a checkpoint lacks weights, which transformers would initialize randomly."""
    if missing := sorted(missing_keys):
        heads = [name for name in missing if not name.startswith(f"{model.base_model_prefix}.")]
        what = f"sequence-classification head ({heads[0]})" if heads else f"weights of its layers ({missing[0]})"
        raise ContractError(
            f"{source}: no {what} in the checkpoint; its scores would be random. Use a trained cross-encoder, or "
            "convert the checkpoint again"
        )


def _load_module_head(model: Any, head: ModuleHead) -> None:
    """Replace ModernBERT's head by one stored as separate modules. Raises RankLLMError if it does not fit."""
    hidden = model.config.hidden_size
    dense, norm, score = (_head_weights(folder) for folder in (head.dense, head.norm, head.score))
    model.head.dense = torch.nn.Linear(hidden, hidden, bias="bias" in dense)
    model.head.act = torch.nn.GELU()
    model.head.norm = torch.nn.LayerNorm(hidden)
    model.classifier = torch.nn.Linear(hidden, 1, bias="bias" in score)
    layers = ((model.head.dense, dense, head.dense), (model.head.norm, norm, head.norm))
    for layer, weights, folder in (*layers, (model.classifier, score, head.score)):
        with readable_load(folder, problem="the head's weights do not fit"):
            layer.load_state_dict(weights)
        embeddings = model.get_input_embeddings().weight
        layer.to(embeddings.device, embeddings.dtype)
    model.config.classifier_pooling, model.config.num_labels = head.pooling, 1


def _head_weights(folder: Path) -> dict[str, Tensor]:
    """Return a module's weights by name, without the name of the layer that contains them."""
    from safetensors.torch import load_file

    read_weight_headers(folder)
    with readable_load(folder, problem="the head's weights cannot be loaded"):
        return {name.rpartition(".")[2]: weight for name, weight in load_file(folder / "model.safetensors").items()}


def _read_in_float32(model: Any, source: Path) -> None:
    """Make the layer that returns the score compute in float32. Raises ContractError if it cannot be identified."""
    names = [
        name
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear and module.out_features == 1 and not _is_in_backbone(model, name)
    ]
    if len(names) != 1:
        raise ContractError(
            f"{source}: the head of {type(model).__name__} has {len(names)} linear layers with one output, expected one"
        )
    last = model.get_submodule(names[0])
    exact = ExactRows(last.in_features, 1, bias=last.bias is not None, device="meta")
    exact.weight = torch.nn.Parameter(last.weight.float(), requires_grad=False)
    if last.bias is not None:
        exact.bias = torch.nn.Parameter(last.bias.float(), requires_grad=False)
    model.set_submodule(names[0], exact)


def _is_in_backbone(model: Any, name: str) -> bool:
    return name.startswith(f"{model.base_model_prefix}.")


def ready_encoder(model: Any, asked: str) -> None:
    """Set a loaded encoder's attention implementation and reorder its weights for its device.

    asked: as in `choose_attention`, but auto on a CPU is the attention of packed rows, or transformers' own choice.
    """
    if asked != "auto" or model.device.type != "cpu":
        choose_attention(model, asked)
    elif model.config.model_type in _POOLS:
        use_rows_attention(model)
    pack_weights(model)
    project_positions_once(model)


class Encoder:
    """Scores rows of ids with an encoder and its classification head.

    packing: how rows are concatenated without padding; None selects it by the model's attention, if supported.
    """

    def __init__(self, model: Any, *, packing: Packing | None = None) -> None:
        config = model.config.to_dict()
        self._model = model
        self._backbone = backbone_of(model)
        self.positions = encoder_positions(config)
        """Maximum number of tokens per row."""
        self._first_position = first_position(config)
        self._has_types = (config.get("type_vocab_size") or 0) > 1
        self.packing = packing or _packing_of(model)
        """None if rows are padded."""
        self._pad = config.get("pad_token_id") or 0

    def scores(self, rows: Sequence[Sequence[int]], n_first: Sequence[int]) -> Tensor:
        """Return scores_B in float32. rows: ids, none empty. n_first: number of leading ids with the first token type,
        per row."""
        types = [[0] * n + [1] * (len(row) - n) if n else [0] * len(row) for row, n in zip(rows, n_first, strict=True)]
        return self._packed(rows, types) if self.packing else self._padded(rows, types)

    def try_it(self, source: str) -> None:
        """Raise RankLLMError in one line if the model cannot be run. source: name of the model, for messages."""
        n_embeddings = int(self._model.get_input_embeddings().weight.shape[0])
        row = [token % n_embeddings for token in range(1, _N_TRIED_TOKENS + 1)]
        # transformers computes part of DeBERTa (v1) in float32 only.
        dtype = str(self._model.dtype).removeprefix("torch.")
        hint = "" if dtype == "float32" else f" in {dtype}; try --dtype float32"
        problem = f"{type(self._model).__name__} cannot be run{hint}"
        with readable_load(source, problem=problem), quiet_transformers(hide_warnings=True), torch.inference_mode():
            self.scores([row], [0])

    def _packed(self, rows: Sequence[Sequence[int]], types: Sequence[Sequence[int]]) -> Tensor:
        lengths = [len(row) for row in rows]
        ends = list(accumulate(lengths))
        device = self._model.device
        inputs: dict[str, Any] = {
            "input_ids": torch.tensor([[token for row in rows for token in row]], device=device),
            "position_ids": torch.cat([torch.arange(n) for n in lengths])[None].to(device) + self._first_position,
        }
        if self._has_types:
            inputs["token_type_ids"] = torch.tensor([[kind for row in types for kind in row]], device=device)
        if self.packing == "rows":
            # Never read, but must be present: otherwise transformers would build a mask over all tokens.
            inputs |= {"row_ends": ends, "attention_mask": torch.zeros(1, 1, 1, 1, device=device)}
        else:
            bounds = torch.tensor([0, *ends], dtype=torch.int32, device=device)
            inputs |= {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds}
            inputs |= {"max_length_q": max(lengths), "max_length_k": max(lengths)}
        hidden_TD = self._backbone(**inputs).last_hidden_state[0]
        return _POOLS[self._model.config.model_type](self._model, hidden_TD, ends)[:, 0].float()

    def _padded(self, rows: Sequence[Sequence[int]], types: Sequence[Sequence[int]]) -> Tensor:
        longest = max(map(len, rows))
        device = self._model.device
        padded = [[*row, *[self._pad] * (longest - len(row))] for row in rows]
        inputs = {
            "input_ids": torch.tensor(padded, device=device),
            "attention_mask": torch.tensor(
                [[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device
            ),
        }
        if self._has_types:
            padded = [[*row, *[0] * (longest - len(row))] for row in types]
            inputs["token_type_ids"] = torch.tensor(padded, device=device)
        scores_B: Tensor = self._model(**inputs).logits[:, 0].float()
        return scores_B


def _packing_of(model: Any) -> Packing | None:
    is_known = model.config.model_type in _POOLS and type(model).__module__.startswith("transformers.")
    if not is_known or hasattr(model, "hf_device_map"):
        return None
    attention = str(model.config._attn_implementation)
    return "rows" if attention == ROWS_ATTENTION else "flash" if attention in FLASH_ATTENTIONS else None


def _first_tokens(hidden_TD: Tensor, ends: Sequence[int]) -> Tensor:
    """Return states B1D of the first token of each row of a pack."""
    return hidden_TD[[0, *ends[:-1]], None]


def _bert_logits(model: Any, hidden_TD: Tensor, ends: Sequence[int]) -> Tensor:
    pooled_BD = model.bert.pooler(_first_tokens(hidden_TD, ends))
    return model.classifier(pooled_BD)


def _roberta_logits(model: Any, hidden_TD: Tensor, ends: Sequence[int]) -> Tensor:
    return model.classifier(_first_tokens(hidden_TD, ends))


def _modernbert_logits(model: Any, hidden_TD: Tensor, ends: Sequence[int]) -> Tensor:
    if model.config.classifier_pooling == "mean":
        lengths = [end - start for start, end in zip([0, *ends], ends, strict=False)]
        pooled_BD = torch.stack([row_LD.sum(0) / len(row_LD) for row_LD in hidden_TD.split(lengths)])
    else:
        pooled_BD = _first_tokens(hidden_TD, ends)[:, 0]
    return model.classifier(model.head(pooled_BD))


_POOLS: dict[str, Callable[[Any, Tensor, Sequence[int]], Tensor]] = {
    "bert": _bert_logits,
    "camembert": _roberta_logits,
    "modernbert": _modernbert_logits,
    "roberta": _roberta_logits,
    "xlm-roberta": _roberta_logits,
}
"""Architectures that support packed rows -> function from the states TD of a pack and its rows' ends to logits B1.
Their layers derive a token's position from `position_ids`, interact between tokens only through attention, and pass
arguments through to it."""

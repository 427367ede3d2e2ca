"""Encoder-decoders (T5 and its family), read at the decoder's first step.

The encoder reads padded prompts with an attention mask; the decoder only gets its start token. The model's own
computation from its last states to the logits is kept (T5 scales the states if its embeddings are tied).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rankllm_core.errors import ContractError
from rankllm_core.nn.model_parts import quiet_transformers, readable_load
from rankllm_core.prompts.tokens import SafeTokenizer, single_ids
from rankllm_infer.engines.transformers.model import LoadedModel, choose_attention, narrow_head

_N_TRIED_TOKENS = 8


def load_encoder_decoder(source: Path, options: dict[str, Any]) -> Any:
    """Load an encoder-decoder with its language-model head. options: for `from_pretrained`.

    Raises ContractError if any weight is missing.
    """
    from transformers import AutoModelForSeq2SeqLM

    with readable_load(source):
        model, report = AutoModelForSeq2SeqLM.from_pretrained(str(source), output_loading_info=True, **options)
    if missing := sorted(report["missing_keys"]):
        raise ContractError(
            f"{source}: the checkpoint lacks {len(missing)} of the model's weights, such as {missing[0]}; they would "
            "be random. Copy or convert the checkpoint again"
        )
    return model


def ready_encoder_decoder(loaded: LoadedModel, attention: str, source: Path) -> EncoderDecoder:
    """Set up the reader of a loaded model. attention: as in `choose_attention`, but auto leaves the choice to
    transformers.

    Raises RankLLMError if the model does not support that attention, ContractError if its settings are incomplete.
    """
    if attention != "auto":
        choose_attention(loaded.model, attention)
    return EncoderDecoder(loaded.model, loaded.tokenizer, source)


class EncoderDecoder:
    """Reads token logits at the decoder's first step.

    tokenizer: the model's own. Raises ContractError if the model does not specify its decoder's start token.
    """

    def __init__(self, model: Any, tokenizer: Any, source: Path) -> None:
        generation = getattr(model, "generation_config", None)
        start = getattr(generation, "decoder_start_token_id", None)
        start = model.config.decoder_start_token_id if start is None else start
        if not isinstance(start, int):
            raise ContractError(
                f"{source}: its settings do not name the decoder's start token (decoder_start_token_id in config.json)"
            )
        self._model = model
        self._start = start
        self._pad = next(i for i in (tokenizer.pad_token_id, model.config.pad_token_id, 0) if i is not None)
        self._safe = SafeTokenizer(tokenizer)
        self._known: dict[tuple[str, ...], list[int]] = {}

    def ids_of(self, words: tuple[str, ...]) -> list[int]:
        """Return the token of each word at the start of an answer. Raises ContractError if a word is more than one
        token."""
        if words not in self._known:
            self._known[words] = single_ids(self._safe, words, after="")
        return self._known[words]

    def logits(self, rows: Sequence[Sequence[int]], words: Sequence[tuple[str, ...]]) -> list[tuple[float, ...]]:
        """Return the logits of each row's words, in float32. rows: ids of prompts, none empty."""
        ids = [self.ids_of(named) for named in words]
        with narrow_head(self._model, sorted({token for found in ids for token in found})) as head:
            places_U = torch.zeros(1, dtype=torch.long, device=self._model.device)
            logits_BR = head.logits(places_U, self._inputs(rows))[:, 0].float()
        return [tuple(logits_R[head.columns(found)].tolist()) for logits_R, found in zip(logits_BR, ids, strict=True)]

    @torch.inference_mode()
    def try_it(self, source: str) -> None:
        """Raise RankLLMError in one line if the model cannot be run. source: name of the model, for messages."""
        n_embeddings = int(self._model.get_input_embeddings().weight.shape[0])
        row = [token % n_embeddings for token in range(1, _N_TRIED_TOKENS + 1)]
        problem = f"{type(self._model).__name__} cannot be run"
        with readable_load(source, problem=problem), quiet_transformers(hide_warnings=True):
            self._model(**self._inputs([row]))

    def _inputs(self, rows: Sequence[Sequence[int]]) -> dict[str, Any]:
        longest, device = max(map(len, rows)), self._model.device
        padded: Tensor = torch.tensor([[*row, *[self._pad] * (longest - len(row))] for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
        start = torch.full((len(rows), 1), self._start, device=device)
        return {"input_ids": padded, "attention_mask": mask, "decoder_input_ids": start, "use_cache": False}

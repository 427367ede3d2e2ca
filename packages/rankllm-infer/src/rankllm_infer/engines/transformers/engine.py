"""Engine that runs models with transformers, on a CPU or GPUs.

Batches are sorted by length under a token budget, and equal prompts run once. Reading scores takes one forward pass
whose output layer only runs at the last real position. If the model supports it (`packing`), prompts are packed into
one row without padding. Otherwise they are padded on the right: tokens after a causal model's last real token cannot
affect it, so no attention mask is needed. Either way, scores only differ between batches by rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch

from rankllm_core.nn.model_parts import backbone_of
from rankllm_core.prompts.tokens import SafeTokenizer
from rankllm_core.types import AnswerForm, Usage
from rankllm_infer.engines.base import Answer, EngineError, IdentifierIds, Prompt, end_ids, text_answer
from rankllm_infer.engines.transformers.batches import Batch, BatchLimits, BatchQueue, positions, rotation_limit
from rankllm_infer.engines.transformers.model import LoadedModel, can_share_prefix, compile_layers, narrow_head
from rankllm_infer.engines.transformers.packing import Packing, packing_of
from rankllm_infer.engines.transformers.permutation_decoding import decode_permutations
from rankllm_infer.engines.transformers.permutation_ids import AnswerWalk, PermutationIds, permutation_ids


class TransformersEngine:
    """One transformers model behind the Engine protocol."""

    name = "transformers"
    takes_prompts_at_work = False

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        limits: BatchLimits | None = None,
        compiles: bool = False,
        packing: Packing | None = None,
    ) -> None:
        """compiles: compile the model's layers now, for reading scores only. packing: None for `packing_of`."""
        limits = limits or BatchLimits()
        self._model = loaded.model
        self._tokenizer = loaded.tokenizer
        self._device = loaded.model.device
        self.dtype = str(loaded.dtype).removeprefix("torch.")
        self.device, self.attention = loaded.model.device, str(loaded.model.config._attn_implementation)
        # Small batches win on a CPU: padding and cache misses cost more than larger matrices gain.
        max_tokens = limits.max_tokens or (2048 if self._device.type == "cpu" else 65536)
        self._rotation_limit = rotation_limit(loaded.model.config)
        self.n_slots = max_prompts = limits.max_prompts if self._rotation_limit is None else 1
        self._queue = BatchQueue(BatchLimits(max_prompts=max_prompts, max_tokens=max_tokens))
        self._pad = next(i for i in (loaded.tokenizer.pad_token_id, loaded.tokenizer.eos_token_id, 0) if i is not None)
        self._safe = SafeTokenizer(loaded.tokenizer)
        self._encoder, self._encoder_decoder = loaded.encoder, loaded.encoder_decoder
        self._backbone = backbone_of(loaded.model) if loaded.encoder_decoder is None else None
        self._packing = packing or packing_of(loaded.model)
        self._can_share = _shares_prefixes(loaded, self._packing, compiles=compiles)
        self._compiles = compiles
        if compiles:
            self._compile()
        self._identifier_ids = IdentifierIds(self._safe)
        self._permutation_ids: dict[tuple[tuple[str, ...], AnswerForm, str], PermutationIds] = {}
        self._declared_end = getattr(getattr(loaded.model, "generation_config", None), "eos_token_id", None)
        self._vocabulary = _embedding_rows(loaded.model)
        self._max_positions = getattr(loaded.model.config, "max_position_embeddings", None)
        if self._encoder is not None:
            self._max_positions = self._encoder.positions

    def submit(self, ticket: int, prompt: Prompt) -> None:
        """Queue a prompt."""
        self._queue.add(ticket, prompt if self._can_share else replace(prompt, n_shared=0))

    def collect(self) -> list[tuple[int, Answer | EngineError]]:
        """Run the next batch: the longest queued prompt and those closest to it in length."""
        if not self._queue:
            return []
        batch = self._queue.take()
        refused = [self._unknown_token(prompt) or self._too_long(prompt) for prompt in batch.prompts]
        if any(refused):  # the longest comes first; shorter ones may still fit
            return self._refuse(batch, refused)
        answers = self._run_in_memory(batch)
        copied = ((ticket, answers[place]) for ticket, place in batch.copies)
        return [*zip(batch.tickets, answers, strict=True), *copied]

    def _refuse(self, batch: Batch, refused: Sequence[EngineError | None]) -> list[tuple[int, Answer | EngineError]]:
        """Return errors for prompts that cannot be run and requeue the others, in case the errors end the run."""
        given: list[tuple[int, Answer | EngineError]] = []
        for ticket, place in (*zip(batch.tickets, range(len(refused)), strict=True), *batch.copies):
            if (refusal := refused[place]) is not None:
                given.append((ticket, refusal))
            else:
                self._queue.add(ticket, batch.prompts[place])
        return given

    def cancel(self, tickets: Collection[int]) -> None:
        """Drop queued prompts."""
        self._queue.remove(tickets)

    def wake(self) -> None:
        """No effect: a batch cannot be interrupted."""

    def close(self) -> None:
        """Drop all queued prompts."""
        self._queue.clear()

    def _unknown_token(self, prompt: Prompt) -> EngineError | None:
        """Refuse unknown token ids: an index out of range would end the run on a CPU and corrupt the CUDA context on a
        GPU."""
        if self._vocabulary is None or max(prompt.token_ids, default=0) < self._vocabulary:
            return None
        return EngineError(
            f"the tokenizer returned token id {max(prompt.token_ids)}, but the model has {self._vocabulary} tokens; "
            "tokenizer and model do not match"
        )

    def _too_long(self, prompt: Prompt) -> EngineError | None:
        # Reading scores generates nothing: they are read at the last token of the prompt.
        generates = prompt.read in ("text", "permutation")
        needed, limit = positions(prompt) if generates else len(prompt.token_ids), self._rotation_limit
        if prompt.read == "permutation" and limit is not None and len(prompt.token_ids) <= limit < needed:
            return EngineError(
                f"the model encodes texts of more than {limit} tokens differently (LongRoPE), but this prompt and its "
                f"answer cross that limit ({needed} tokens); use a smaller --context-size, or --free-decoding"
            )
        if self._max_positions is None or needed <= self._max_positions:
            return None
        return EngineError(
            f"the prompt and its answer take {needed} tokens, but the model has {self._max_positions} positions; "
            "use a smaller --context-size or --window-size (listwise), or --q-max-len and --p-max-len (otherwise)"
        )

    def _run_in_memory(self, batch: Batch) -> list[Answer | EngineError]:
        """Run a batch; if it does not fit in the device's memory, run its halves."""
        try:
            return list(self._run(batch))
        except torch.OutOfMemoryError:
            pass
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if len(batch.prompts) == 1:
            return [EngineError("out of memory with one prompt; use a smaller --context-size, or --dtype bfloat16")]
        half = len(batch.prompts) // 2
        parts = (batch.prompts[:half], batch.prompts[half:])
        return [answer for part in parts for answer in self._run_in_memory(replace(batch, prompts=part))]

    @torch.inference_mode()
    def _run(self, batch: Batch) -> Sequence[Answer | EngineError]:
        read = batch.prompts[0].read
        if read == "text":
            return self._generate(batch.prompts)
        if read == "permutation":
            return self._decode_permutations(batch.prompts)
        return self._read_first_tokens(batch) if read == "first-token" else self._read_head(batch)

    def _read_first_tokens(self, batch: Batch) -> list[Answer]:
        if self._encoder_decoder is not None:
            prompts = batch.prompts
            scores = self._encoder_decoder.logits([p.token_ids for p in prompts], [p.identifiers for p in prompts])
            return [Answer(scores=said, usage=_read_once(p)) for p, said in zip(prompts, scores, strict=True)]
        ids_of = [self._identifier_ids.of(prompt) for prompt in batch.prompts]
        inputs, rows_B, places_B = self._inputs([prompt.token_ids for prompt in batch.prompts], n_shared=batch.n_shared)
        keep_U, kept_B = torch.unique(places_B, return_inverse=True)
        with narrow_head(self._model, sorted({token for ids in ids_of for token in ids})) as head:
            logits_BUR = head.logits(keep_U, inputs)
        logits_BR = logits_BUR[rows_B.to(logits_BUR.device), kept_B.to(logits_BUR.device)].float()
        return [
            Answer(scores=tuple(logits_R[head.columns(ids)].tolist()), usage=_read_once(prompt))
            for prompt, ids, logits_R in zip(batch.prompts, ids_of, logits_BR, strict=True)
        ]

    def _read_head(self, batch: Batch) -> list[Answer]:
        if self._encoder is not None:
            rows, n_first = zip(*((prompt.token_ids, prompt.n_first) for prompt in batch.prompts), strict=True)
            return _score_answers(batch.prompts, self._encoder.scores(rows, n_first))
        inputs, rows_B, places_B = self._inputs([prompt.token_ids for prompt in batch.prompts], n_shared=batch.n_shared)
        hidden_BTD = self._backbone(**inputs).last_hidden_state
        pooled_BD = hidden_BTD[rows_B.to(hidden_BTD.device), places_B.to(hidden_BTD.device)]
        # Accumulated in float32: in bfloat16, scores would tie (its step is 1/32 between 4 and 8).
        scores_B = pooled_BD.float() @ self._model.score.weight[0].float().to(pooled_BD.device)
        return _score_answers(batch.prompts, scores_B)

    def _decode_permutations(self, prompts: Sequence[Prompt]) -> list[Answer | EngineError]:
        walks = [self._walk_of(prompt) for prompt in prompts]
        whole = decode_permutations(self._model, [prompt.token_ids for prompt in prompts], walks, pad=self._pad)
        return [
            _permutation(prompt, walk) if is_whole else EngineError(_NOT_A_NUMBER)
            for prompt, walk, is_whole in zip(prompts, walks, whole, strict=True)
        ]

    def _walk_of(self, prompt: Prompt) -> AnswerWalk:
        # Prompts of one template end alike; 32 characters are enough to distinguish what tokenizers may merge with
        # the answer.
        key = (prompt.identifiers, prompt.form, prompt.text[-32:])
        if key not in self._permutation_ids:
            self._permutation_ids[key] = permutation_ids(self._safe, *key[:2], prompt=prompt.text)
        n_labels = len(prompt.identifiers)
        return AnswerWalk(self._permutation_ids[key], n_labels if prompt.top_k is None else prompt.top_k)

    def _generate(self, prompts: Sequence[Prompt]) -> list[Answer]:
        from transformers import GenerationConfig

        longest = max(len(prompt.token_ids) for prompt in prompts)
        padding = [longest - len(prompt.token_ids) for prompt in prompts]
        ids_BT = torch.tensor([[self._pad] * n + list(p.token_ids) for n, p in zip(padding, prompts, strict=True)])
        mask_BT = torch.tensor([[0] * n + [1] * (longest - n) for n in padding])
        ends = end_ids(self._declared_end, self._tokenizer)
        config = GenerationConfig(
            do_sample=False,
            max_new_tokens=max(prompt.max_new_tokens for prompt in prompts),
            pad_token_id=self._pad,
            eos_token_id=ends,
        )
        # Strictly greedy: `generate` would otherwise merge in the checkpoint's own penalties and constraints.
        self._model.generation_config = config
        output_BT = self._model.generate(
            ids_BT.to(self._device), attention_mask=mask_BT.to(self._device), generation_config=config
        )
        return [
            text_answer(prompt, ids[longest:], ends=ends, tokenizer=self._tokenizer)
            for prompt, ids in zip(prompts, output_BT.tolist(), strict=True)
        ]

    @torch.inference_mode()
    def _compile(self) -> None:
        """Compile the layers and run them on representative inputs: several rows, and one row."""
        compile_layers(self._model)
        for rows in (((0,) * 9, (0,) * 8), ((0,) * 8,)):
            self._backbone(**self._inputs(rows, n_shared=0)[0])

    def _inputs(
        self, rows: Sequence[Sequence[int]], *, n_shared: int
    ) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
        """Return the model's inputs, and the position of each row's last token in the output: rows_B and places_B."""
        packing = self._packing
        if packing and (len(rows) > 1 or self._compiles) and max(map(len, rows)) <= packing.longest:
            inputs, places_B = packing.pack(rows, n_shared=n_shared, device=self._device)
            return inputs, torch.zeros_like(places_B), places_B
        inputs, places_B = self._padded(rows, n_shared=n_shared)
        return inputs, torch.arange(len(rows), device=self._device), places_B

    def _padded(self, rows: Sequence[Sequence[int]], *, n_shared: int) -> tuple[dict[str, Any], torch.Tensor]:
        """Return rows padded on the right, after a prefix computed beforehand, and last_B: the last real index of each
        row."""
        tails = [row[n_shared:] for row in rows]
        longest = max(map(len, tails))
        ids_BT = torch.tensor([[*ids] + [self._pad] * (longest - len(ids)) for ids in tails], device=self._device)
        last_B = torch.tensor([len(ids) - 1 for ids in tails], device=self._device)
        if not n_shared:
            return {"input_ids": ids_BT, "use_cache": False}, last_B
        prefix_1T = torch.tensor([rows[0][:n_shared]], device=self._device)
        cache = self._backbone(input_ids=prefix_1T, use_cache=True).past_key_values
        cache.batch_repeat_interleave(len(rows))
        return {"input_ids": ids_BT, "past_key_values": cache, "use_cache": True}, last_B


def _shares_prefixes(loaded: LoadedModel, packing: Packing | None, *, compiles: bool) -> bool:
    """Return whether common prefixes of prompts are computed once."""
    if loaded.encoder is not None or loaded.encoder_decoder is not None:
        return False
    if packing is not None:
        return packing.shares_prefix
    # Compiled layers that read behind a cache would be recompiled for each layer.
    return not compiles and can_share_prefix(loaded.model)


def _embedding_rows(model: Any) -> int | None:
    """Return the number of token embeddings of a model; None if unknown."""
    rows = getattr(model.get_input_embeddings(), "weight", None)
    return len(rows) if isinstance(rows, torch.Tensor) and rows.dim() == 2 else None


def _score_answers(prompts: Sequence[Prompt], scores_B: torch.Tensor) -> list[Answer]:
    return [
        Answer(scores=(score,), usage=_read_once(prompt))
        for prompt, score in zip(prompts, scores_B.tolist(), strict=True)
    ]


def _read_once(prompt: Prompt) -> Usage:
    return Usage(calls=1, prompt_tokens=len(prompt.token_ids))


_NOT_A_NUMBER = "the model's logits for the identifiers are NaN; use --dtype bfloat16 or float32"


def _permutation(prompt: Prompt, walk: AnswerWalk) -> Answer:
    """Build the answer that names the chosen identifiers, then the rest in prompt order."""
    order = dict.fromkeys((*walk.order, *range(len(prompt.identifiers))))
    return Answer(
        text=prompt.form.write([prompt.identifiers[position] for position in order]),
        usage=Usage(calls=1, prompt_tokens=len(prompt.token_ids), completion_tokens=walk.n_tokens),
    )

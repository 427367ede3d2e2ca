"""Runs models with transformers, on a CPU or GPUs.

Batches are sorted by length under a token budget. Every read but generation is one forward pass whose output layer runs
at the last real position only. Prompts are padded on the right: what follows a causal model's last real token cannot
change it, so no attention mask is needed and a score does not depend on what else is in the batch.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from rankllm_core.errors import ConfigError
from rankllm_core.tokens import SafeTokenizer
from rankllm_core.types import Usage
from rankllm_infer.engines import Answer, EngineError, Prompt
from rankllm_infer.engines.loading import LoadedModel
from rankllm_infer.engines.token_ids import IdentifierIds, end_ids, text_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """How much goes through the model at once."""

    max_prompts: int = 32
    max_tokens: int = 0
    """Padded tokens of a batch; 0 for what suits the device."""

    def __post_init__(self) -> None:
        if self.max_prompts < 1 or self.max_tokens < 0:
            raise ConfigError(f"batch: need max_prompts >= 1 and max_tokens >= 0, got {self}")


class TransformersEngine:
    """One model of transformers behind the Engine protocol."""

    name = "transformers"

    def __init__(self, loaded: LoadedModel, *, limits: BatchLimits | None = None) -> None:
        limits = limits or BatchLimits()
        self._model = loaded.model
        self._tokenizer = loaded.tokenizer
        self._device = loaded.model.device
        self._limits = limits
        # Small batches win on a CPU: padding and cache misses cost more than larger matrices gain.
        self._max_tokens = limits.max_tokens or (2048 if self._device.type == "cpu" else 65536)
        self._pad = next(i for i in (loaded.tokenizer.pad_token_id, loaded.tokenizer.eos_token_id, 0) if i is not None)
        self._safe = SafeTokenizer(loaded.tokenizer)
        self._keeps_logits = "logits_to_keep" in inspect.signature(loaded.model.forward).parameters
        self._identifier_ids = IdentifierIds(self._safe)
        self._declared_end = getattr(getattr(loaded.model, "generation_config", None), "eos_token_id", None)
        self._queue: list[tuple[int, Prompt]] = []
        self._max_positions = getattr(loaded.model.config, "max_position_embeddings", None)

    def submit(self, ticket: int, prompt: Prompt) -> None:
        """Queue a prompt."""
        self._queue.append((ticket, prompt))

    def collect(self) -> list[tuple[int, Answer | EngineError]]:
        """Run the next batch: the longest prompt waiting and those nearest to it in length."""
        if not self._queue:
            return []
        self._queue.sort(key=lambda item: (_positions(item[1]), -item[0]))
        if too_long := self._too_long(self._queue[-1][1]):
            return [(self._queue.pop()[0], too_long)]
        tickets, prompts = zip(*self._next_batch(), strict=True)
        return list(zip(tickets, self._run_in_memory(prompts), strict=True))

    def cancel(self, tickets: Collection[int]) -> None:
        """Drop queued prompts."""
        dropped = set(tickets)
        self._queue = [item for item in self._queue if item[0] not in dropped]

    def close(self) -> None:
        """Drop what is queued."""
        self._queue.clear()

    def _next_batch(self) -> list[tuple[int, Prompt]]:
        read = self._queue[-1][1].read
        longest = _positions(self._queue[-1][1])
        room = max(1, min(self._limits.max_prompts, self._max_tokens // max(1, longest)))
        batch: list[tuple[int, Prompt]] = []
        while self._queue and len(batch) < room and self._queue[-1][1].read == read:
            batch.append(self._queue.pop())
        return batch

    def _too_long(self, prompt: Prompt) -> EngineError | None:
        needed = _positions(prompt)
        if self._max_positions is None or needed <= self._max_positions:
            return None
        return EngineError(
            f"the prompt and its answer take {needed} tokens, the model has {self._max_positions} positions; "
            "use a smaller --context-size or --window-size (listwise), or --q-max-len and --p-max-len (pointwise)"
        )

    def _run_in_memory(self, prompts: Sequence[Prompt]) -> list[Answer | EngineError]:
        """Run a batch; where the device's memory does not hold it, its halves."""
        try:
            return list(self._run(prompts))
        except torch.OutOfMemoryError:
            pass
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        if len(prompts) == 1:
            return [EngineError("out of memory with one prompt; use a smaller --context-size, or --dtype bfloat16")]
        half = len(prompts) // 2
        return self._run_in_memory(prompts[:half]) + self._run_in_memory(prompts[half:])

    @torch.inference_mode()
    def _run(self, prompts: Sequence[Prompt]) -> list[Answer]:
        if prompts[0].read == "text":
            return self._generate(prompts)
        if prompts[0].read == "first-token":
            return self._read_first_tokens(prompts)
        return self._read_head(prompts)

    def _read_first_tokens(self, prompts: Sequence[Prompt]) -> list[Answer]:
        ids_BT, last_B = self._right_padded(prompts)
        keep_U, place_B = torch.unique(last_B, return_inverse=True)
        rows = torch.arange(len(prompts), device=self._device)
        if self._keeps_logits:
            logits_BUV = self._model(input_ids=ids_BT, use_cache=False, logits_to_keep=keep_U).logits
            logits_BV = logits_BUV[rows, place_B]
        else:
            logits_BV = self._model(input_ids=ids_BT, use_cache=False).logits[rows, last_B]
        return [
            Answer(
                scores=tuple(logits_V[self._identifier_ids.of(prompt)].float().tolist()),
                usage=Usage(calls=1, prompt_tokens=len(prompt.token_ids)),
            )
            for prompt, logits_V in zip(prompts, logits_BV, strict=True)
        ]

    def _read_head(self, prompts: Sequence[Prompt]) -> list[Answer]:
        ids_BT, last_B = self._right_padded(prompts)
        backbone = getattr(self._model, self._model.base_model_prefix)
        hidden_BTD = backbone(input_ids=ids_BT, use_cache=False).last_hidden_state
        pooled_BD = hidden_BTD[torch.arange(len(prompts), device=hidden_BTD.device), last_B.to(hidden_BTD.device)]
        # Accumulated in fp32: bf16 scores would tie (a step of 1/32 for scores from 4 to 8).
        scores_B = pooled_BD.float() @ self._model.score.weight[0].float().to(pooled_BD.device)
        return [
            Answer(scores=(score,), usage=Usage(calls=1, prompt_tokens=len(prompt.token_ids)))
            for prompt, score in zip(prompts, scores_B.tolist(), strict=True)
        ]

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
        # Greedy means greedy: `generate` would merge a checkpoint's own penalties and constraints into ours.
        self._model.generation_config = config
        output_BT = self._model.generate(
            ids_BT.to(self._device), attention_mask=mask_BT.to(self._device), generation_config=config
        )
        return [
            text_answer(prompt, ids[longest:], ends=ends, tokenizer=self._tokenizer)
            for prompt, ids in zip(prompts, output_BT.tolist(), strict=True)
        ]

    def _right_padded(self, prompts: Sequence[Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
        """ids_BT padded on the right, and last_B: each prompt's last real position."""
        longest = max(len(prompt.token_ids) for prompt in prompts)
        rows = [list(p.token_ids) + [self._pad] * (longest - len(p.token_ids)) for p in prompts]
        last = [len(prompt.token_ids) - 1 for prompt in prompts]
        return torch.tensor(rows, device=self._device), torch.tensor(last, device=self._device)


def _positions(prompt: Prompt) -> int:
    """Positions that a prompt and its answer take."""
    return len(prompt.token_ids) + prompt.max_new_tokens


def cap_threads() -> None:
    """Let torch use as many threads as this process may really run at once, not as many as the machine has."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:
        allowed = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        allowed = min(allowed, max(1, int(quota) // int(period))) if quota != "max" else allowed
    except (OSError, ValueError):
        pass  # no cgroup limit to read: not Linux, or cgroup v1
    torch.set_num_threads(min(torch.get_num_threads(), allowed))

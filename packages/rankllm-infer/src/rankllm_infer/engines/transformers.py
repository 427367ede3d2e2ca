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

from rankllm_core.errors import ConfigError, ContractError
from rankllm_core.identifiers import AnswerForm
from rankllm_core.tokens import SafeTokenizer, single_ids
from rankllm_core.types import Usage
from rankllm_infer.engines import Answer, EngineError, Prompt
from rankllm_infer.engines.loading import LoadedModel
from rankllm_infer.engines.permutation_decoding import decode_permutations
from rankllm_infer.engines.permutation_ids import AnswerWalk, PermutationIds, permutation_ids


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
        self._identifier_ids: dict[tuple[tuple[str, ...], str], list[int]] = {}
        self._permutation_ids: dict[tuple[tuple[str, ...], AnswerForm, str], PermutationIds] = {}
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
    def _run(self, prompts: Sequence[Prompt]) -> Sequence[Answer | EngineError]:
        if prompts[0].read == "text":
            return self._generate(prompts)
        if prompts[0].read == "first-token":
            return self._read_first_tokens(prompts)
        if prompts[0].read == "permutation":
            return self._decode_permutations(prompts)
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
                scores=tuple(logits_V[self._ids_of(prompt)].float().tolist()),
                usage=Usage(calls=1, prompt_tokens=len(prompt.token_ids)),
            )
            for prompt, logits_V in zip(prompts, logits_BV, strict=True)
        ]

    def _ids_of(self, prompt: Prompt) -> list[int]:
        key = (prompt.identifiers, prompt.text[-1:])
        if key not in self._identifier_ids:
            self._identifier_ids[key] = single_ids(self._safe, prompt.identifiers, after=prompt.text[-1:])
        return self._identifier_ids[key]

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

    def _decode_permutations(self, prompts: Sequence[Prompt]) -> list[Answer | EngineError]:
        walks = [self._walk_of(prompt) for prompt in prompts]
        whole = decode_permutations(self._model, [prompt.token_ids for prompt in prompts], walks, pad=self._pad)
        return [
            _permutation(prompt, walk) if is_whole else EngineError(_NOT_A_NUMBER)
            for prompt, walk, is_whole in zip(prompts, walks, whole, strict=True)
        ]

    def _walk_of(self, prompt: Prompt) -> AnswerWalk:
        # Prompts of one template end alike; 32 characters tell apart what tokenizers may join with the answer.
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
        ends = self._ends()
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
            self._generated(prompt, ids[longest:], ends)
            for prompt, ids in zip(prompts, output_BT.tolist(), strict=True)
        ]

    def _generated(self, prompt: Prompt, ids: list[int], ends: list[int]) -> Answer:
        ids = ids[: prompt.max_new_tokens]
        end = next((place for place, token in enumerate(ids) if token in ends), None)
        usage = Usage(
            calls=1,
            prompt_tokens=len(prompt.token_ids),
            completion_tokens=len(ids) if end is None else end + 1,
        )
        text = self._tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Answer(text=text, usage=usage)

    def _ends(self) -> list[int]:
        """The tokens that end an answer: the model's own, or the tokenizer's."""
        declared = self._declared_end
        if declared is None:
            declared = self._tokenizer.eos_token_id
        if declared is None:
            raise ContractError("neither the model nor its tokenizer names an end-of-text token")
        return list(declared) if isinstance(declared, (list, tuple)) else [declared]

    def _right_padded(self, prompts: Sequence[Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
        """ids_BT padded on the right, and last_B: each prompt's last real position."""
        longest = max(len(prompt.token_ids) for prompt in prompts)
        rows = [list(p.token_ids) + [self._pad] * (longest - len(p.token_ids)) for p in prompts]
        last = [len(prompt.token_ids) - 1 for prompt in prompts]
        return torch.tensor(rows, device=self._device), torch.tensor(last, device=self._device)


_NOT_A_NUMBER = "the model's logits of the identifiers are not numbers (NaN); use --dtype bfloat16 or float32"


def _permutation(prompt: Prompt, walk: AnswerWalk) -> Answer:
    """The answer that names what was chosen, then the rest in prompt order."""
    order = dict.fromkeys((*walk.order, *range(len(prompt.identifiers))))
    return Answer(
        text=prompt.form.write([prompt.identifiers[position] for position in order]),
        usage=Usage(calls=1, prompt_tokens=len(prompt.token_ids), completion_tokens=walk.n_tokens),
    )


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

"""Batches of examples, right-padded to the longest, and a sampler that groups similar lengths to reduce padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.trainer_pt_utils import BatchRebalanceSampler

from rankllm_train.encoding.listwise import ListwiseItem
from rankllm_train.encoding.listwise_encoder import ListwiseExample
from rankllm_train.encoding.pointwise import PointwiseItem
from rankllm_train.recipe.recipe import Recipe
from rankllm_train.training.losses import IGNORED_LABEL


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseCollator:
    """Collates listwise examples into a batch, right-padded to the longest.

    Tokens after a sequence's last real token cannot influence a causal model's output for it, so no attention mask is
    needed.
    """

    objective: str
    identifier_ids: tuple[int, ...]
    pad_id: int

    def __call__(self, items: Sequence[ListwiseItem]) -> dict[str, Tensor]:
        """Return the batch of some examples."""
        examples = [item.example for item in items]
        batch = {
            "input_ids": padded([example.token_ids for example in examples], pad=self.pad_id),
            "lengths": torch.tensor([len(example) for example in examples]),
            "indices": torch.tensor([item.index for item in items]),
        }
        if self.objective != "ranking":
            batch["labels"] = self._labels(examples)
        if self.identifier_ids:
            batch |= self._ranking(examples)
        return batch

    @staticmethod
    def _labels(examples: Sequence[ListwiseExample]) -> Tensor:
        """labels_BT: at position t the token at t + 1 if it belongs to the target, else IGNORED_LABEL."""
        rows = []
        for example in examples:
            ignored = [IGNORED_LABEL] * (example.n_prompt - 1)
            rows.append([*ignored, *example.token_ids[example.n_prompt :], IGNORED_LABEL])
        return padded(rows, pad=IGNORED_LABEL)

    def _ranking(self, examples: Sequence[ListwiseExample]) -> dict[str, Tensor]:
        return {
            "read_positions": torch.tensor([example.n_prompt for example in examples]),
            "read_ids": padded([self.identifier_ids[: len(example.ranks)] for example in examples], pad=0),
            "ranks": padded([example.ranks for example in examples], pad=0),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PointwiseCollator:
    """Collates whole groups into a batch, one row per pair, right-padded to the longest pair.

    answer_ids: id of the token whose logit is read, or of a yes and a no token; empty with a score layer. has_mask: for
    bidirectional models, add an attention mask that excludes padding, and token types if the tokenizer has them.
    """

    pad_id: int
    answer_ids: tuple[int, ...] = ()
    has_mask: bool = False

    def __call__(self, items: Sequence[PointwiseItem]) -> dict[str, Tensor]:
        """Return the batch of some groups."""
        rows = [row for item in items for row in item.rows]
        lengths = torch.tensor([len(row) for row in rows])
        batch = {
            "input_ids": padded(rows, pad=self.pad_id),
            "lengths": lengths,
            "read_positions": lengths - 1,
            "indices": torch.tensor([item.index for item in items]),
        }
        if self.answer_ids:
            batch["read_ids"] = torch.tensor([self.answer_ids] * len(rows))
        if self.has_mask:
            batch |= self._pairs(rows, [n for item in items for n in item.n_first])
        if items[0].teacher_scores is not None:
            batch["teacher_scores"] = torch.tensor([item.teacher_scores for item in items])
        return batch

    @staticmethod
    def _pairs(rows: Sequence[Sequence[int]], n_first: Sequence[int]) -> dict[str, Tensor]:
        pairs = {"attention_mask": padded([[1] * len(row) for row in rows], pad=0)}
        if n_first:
            types = [[0] * n + [1] * (len(row) - n) for row, n in zip(rows, n_first, strict=True)]
            pairs["token_type_ids"] = padded(types, pad=0)
        return pairs


def padded(rows: Sequence[Sequence[int]], *, pad: int) -> Tensor:
    """Return rows of integers as one int64 tensor, right-padded to the longest."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])


def by_length_sampler(lengths: Sequence[int], recipe: Recipe, *, share: tuple[int, int]) -> BatchRebalanceSampler:
    """Sampler of one process that splits each optimizer step's randomly drawn records into forward passes by length.

    lengths: tokens of each record. share: (index of this process, number of processes). The Trainer recognizes this
    sampler and passes it each epoch's number, so a resumed run continues in the same order. If fewer records remain at
    the end of an epoch than a step has forward passes, the epoch's first records fill the gap. A step needs at least
    two forward passes.
    """
    number, n_processes = share
    per_device, accumulation = recipe.batch.per_device, recipe.batch.accumulation
    return BatchRebalanceSampler(
        lengths=list(lengths),
        effective_batch_size=per_device * accumulation * n_processes,
        dp_size=n_processes,
        grad_accum=accumulation,
        seed=recipe.schedule.seed,
        rank=number,
        drop_last=False,
    )

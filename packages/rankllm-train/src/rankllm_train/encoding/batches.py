"""Examples put together for a forward pass: padded on the right to the longest; passes of like length, to pad little.

Shapes: B records, G passages per group, T tokens, N passages.
"""

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
    """Puts examples in a batch, padded on the right to the longest of them.

    What follows a causal model's last real token cannot change it, so no attention mask is made.
    """

    objective: str
    identifier_ids: tuple[int, ...]
    pad_id: int

    def __call__(self, items: Sequence[ListwiseItem]) -> dict[str, Tensor]:
        """The batch of some examples."""
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
        """labels_BT: at position t the token at t + 1 where that is the target's, else IGNORED_LABEL."""
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
    """Puts whole groups in a batch, one row a pair, padded on the right to the longest pair.

    answer_ids: the id of the token that is read, or of a yes and a no; empty for a score layer. has_mask: for models
    whose tokens see those behind them, give a mask that leaves padding out, and token types where there are any.
    """

    pad_id: int
    answer_ids: tuple[int, ...] = ()
    has_mask: bool = False

    def __call__(self, items: Sequence[PointwiseItem]) -> dict[str, Tensor]:
        """The batch of some groups."""
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
    """Rows of integers as one int64 tensor, padded on the right to the longest."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])


def by_length_sampler(lengths: Sequence[int], recipe: Recipe, *, share: tuple[int, int]) -> BatchRebalanceSampler:
    """Batches of one process: each optimizer step's records, drawn at random, cut into passes by length.

    lengths: tokens of each record. share: (number of this process, number of all). The Trainer knows this sampler and
    lets it draw each epoch by its number, so a resumed run goes on in the same order. Records that are fewer at the
    end of an epoch than there are forward passes in a step are filled up from the epoch's first ones.
    Needs two forward passes a step or more.
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

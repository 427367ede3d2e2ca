"""Dev loss, nDCG@10 and MRR@10, from the forward pass that computes the loss. Deterministic.

The positive of a pointwise group is its only relevant passage. For listwise records, the teacher's order replaces
judgements: the passage of rank r in a list of m has gain m + 1 - r, and MRR@10 looks for the teacher's first.

Shapes: B lists or groups, N passages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rankllm_core.errors import RankLLMError
from rankllm_train.training.objectives import Batch, Objective

CUTOFF = 10
_NAMED = 3
"""Number of records of a batch named in an error."""


def ndcg(scores_BN: Tensor, gains_BN: Tensor) -> Tensor:
    """Return nDCG@10 of each list (linear gains), ordered by descending score; ties keep the given order.

    gains_BN: 0 or more; negative for padding. Source: Järvelin and Kekäläinen (TOIS 2002), log2(1 + rank) discounts.
    """
    is_padding_BN = gains_BN < 0
    order_BN = scores_BN.masked_fill(is_padding_BN, -torch.inf).argsort(dim=1, descending=True, stable=True)
    gains_BN = gains_BN.clamp(min=0).double()
    rank_N = torch.arange(1, gains_BN.shape[1] + 1, device=gains_BN.device)
    discounts_N = (rank_N <= CUTOFF) / (1 + rank_N.double()).log2()
    found_B = (gains_BN.gather(1, order_BN) * discounts_N).sum(dim=1)
    best_B = (gains_BN.sort(dim=1, descending=True).values * discounts_N).sum(dim=1)
    return found_B / best_B.clamp(min=1e-12)


def reciprocal_rank(scores_BN: Tensor, gains_BN: Tensor) -> Tensor:
    """Return 1 / rank of the passage with the highest gain if that rank is 10 or less, else 0."""
    scores_BN = scores_BN.masked_fill(gains_BN < 0, -torch.inf)
    order_BN = scores_BN.argsort(dim=1, descending=True, stable=True)
    best_B1 = gains_BN.argmax(dim=1, keepdim=True)
    rank_B = (order_BN == best_B1).int().argmax(dim=1) + 1
    return torch.where(rank_B <= CUTOFF, 1.0 / rank_B.double(), 0.0)


def evaluate(
    model: Any,
    objective: Objective,
    dataset: Any,
    collator: Callable[[Sequence[Any]], dict[str, Tensor]],
    *,
    batch_size: int,
    device: torch.device,
    share: tuple[int, int] = (0, 1),
) -> Tensor:
    """Return sums_6 over this process's share of the data: token loss, list loss, tokens, lists, nDCG@10, MRR@10.

    share: (index of this process, number of processes). All processes run the same number of forward passes, as ZeRO-3
    requires; batches repeated for that are counted once. Raises RankLLMError naming the batch if a loss is not finite.
    """
    number, n_processes = share
    starts = list(range(0, len(dataset), batch_size))
    sums_6 = torch.zeros(6, dtype=torch.float64)
    for first in range(0, len(starts), n_processes):
        is_extra = first + number >= len(starts)
        start = starts[-1 if is_extra else first + number]
        items = [dataset[index] for index in range(start, min(start + batch_size, len(dataset)))]
        batch = {name: value.to(device) for name, value in collator(items).items()}
        found_6 = _of_batch(model, objective, batch)
        if not bool(found_6.isfinite().all()):
            raise RankLLMError(f"the dev loss is {float(found_6[:2].sum())} on {batch_names(dataset, batch)}")
        sums_6 += 0 if is_extra else found_6
    return sums_6


def batch_names(dataset: Any, batch: Batch) -> str:
    """Return file, line and record of the first records of a batch, for error messages."""
    indices = batch["indices"].tolist()
    more = f" and {len(indices) - _NAMED} more" if len(indices) > _NAMED else ""
    return ", ".join(dataset.name(index) for index in indices[:_NAMED]) + more


def _of_batch(model: Any, objective: Objective, batch: Batch) -> Tensor:
    kept = _Kept(model)
    with torch.no_grad():
        sums = objective.sums(kept, batch)
    counts = objective.counts(batch)
    values = [sums.tokens, sums.lists, counts.tokens, counts.lists, *_ranking(kept.out, batch, objective)]
    return torch.stack([value.detach().cpu().double() for value in values])


def _ranking(out: dict[str, Tensor], batch: Batch, objective: Objective) -> tuple[Tensor, Tensor]:
    """Return the sums of nDCG@10 and MRR@10 over countable lists; 0 if no identifiers can be read (generation)."""
    zero = torch.zeros((), dtype=torch.float64)
    if "ranks" in batch:
        scores_BN, ranks_BN = out["read_logits"], batch["ranks"]
        n_B1 = (ranks_BN > 0).sum(dim=1, keepdim=True)
        gains_BN = torch.where(ranks_BN > 0, n_B1 + 1 - ranks_BN, -1)[n_B1[:, 0] > 1]
        scores_BN = scores_BN[n_B1[:, 0] > 1]
    elif "labels" in batch:
        return zero, zero
    else:
        scores_M = out["scores"] if "scores" in out else out["read_logits"][:, 0] - out["read_logits"][:, 1]
        scores_BN = scores_M.view(len(batch["indices"]), -1)
        gains_BN = torch.zeros_like(scores_BN)
        gains_BN[:, 0] = 1
        # The positive comes first in a group: reversing the order makes ties count against the model.
        scores_BN, gains_BN = scores_BN.flip(1), gains_BN.flip(1)
    # On the CPU, since not every device supports float64.
    scores_BN, gains_BN = scores_BN.cpu(), gains_BN.cpu()
    return ndcg(scores_BN, gains_BN).sum(), reciprocal_rank(scores_BN, gains_BN).sum()


class _Kept:
    """Model wrapper that keeps its last output, so that loss and metrics come from one forward pass."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.out: dict[str, Tensor] = {}

    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        self.out = self._model(**inputs)
        return self.out

"""Training objectives: sums over a micro-batch, divided by the tokens and lists of the whole optimizer step.

Averaging per micro-batch would weight the tokens of short answers more, and depend on the split into
micro-batches. Shapes: B records or groups, T tokens, N passages, G passages per group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rankllm_train.training.losses import (
    IGNORED_LABEL,
    ListLosses,
    as_groups,
    distillation_kl,
    lambda_per_list,
    listnet_per_list,
    margin_mse,
    own_scores_as_gold,
    pair_cross_entropy,
    pointwise_cross_entropy,
    ranknet_per_list,
    ranks_as_gold,
    sum_token_nll,
)

Batch = Mapping[str, Tensor]


_READ_OF_PAIRS = ("input_ids", "attention_mask", "token_type_ids", "read_positions", "read_ids")
"""Inputs passed to a model of pairs, if the batch contains them."""


class StepCounts(NamedTuple):
    """Denominators of the loss of an optimizer step. Scalars."""

    tokens: Tensor
    """Number of target tokens."""
    lists: Tensor
    """Number of countable lists or groups."""


class LossSums(NamedTuple):
    """Loss of one micro-batch before any division. Scalars."""

    tokens: Tensor
    """Negative log-likelihood of the target tokens, in nats."""
    lists: Tensor
    """Ranking loss, summed over lists or groups."""


class LossParts(NamedTuple):
    """Contribution of a micro-batch to the optimizer step's loss. Scalars."""

    total: Tensor
    token_loss: Tensor
    """Contribution to the mean over target tokens."""
    list_loss: Tensor
    """Contribution to the mean over lists, before weighting."""


class Objective(Protocol):
    """Loss over batches."""

    def counts(self, batch: Batch) -> StepCounts:
        """Return the batch's contribution to the denominators; known before the forward pass."""

    def sums(self, model: Any, batch: Batch) -> LossSums:
        """Run the forward pass and return the sums of its losses."""

    def parts(self, sums: LossSums, counts: StepCounts) -> LossParts:
        """Return the batch's contribution to the loss. counts: of the whole optimizer step, over all processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseObjective:
    """Generation, ranking or combined objective (FIRST, arXiv:2406.15657)."""

    name: str
    """generation, ranking or combined."""
    ranking_loss: str = "ranknet"
    weighted: bool = True
    """RankNet: weight pairs by 1 / (rank_i + rank_j)."""
    weight: float = 10.0
    """Factor of the ranking loss in `combined`."""

    def counts(self, batch: Batch) -> StepCounts:
        """Count target tokens, and lists of at least two passages; a single passage has no order."""
        zero = torch.zeros((), dtype=torch.int64, device=batch["input_ids"].device)
        labels, ranks = batch.get("labels"), batch.get("ranks")
        return StepCounts(
            zero if labels is None else (labels != IGNORED_LABEL).sum(),
            zero if ranks is None else ((ranks > 0).sum(dim=1) > 1).sum(),
        )

    def sums(self, model: Any, batch: Batch) -> LossSums:
        """Sum the losses. Logits are computed only where they are read: at target tokens, and for identifiers at the
        `[`."""
        names = ("input_ids", "labels")
        if self.name != "generation" or not torch.is_grad_enabled():  # generation reads the order only for evaluation
            names += ("read_positions", "read_ids")
        out = model(**{name: batch[name] for name in names if name in batch})
        zero = torch.zeros((), device=batch["input_ids"].device)
        token_sum = list_sum = zero
        if self.name != "ranking":
            labels_BT = batch["labels"]
            token_sum, _ = sum_token_nll(out["token_logits"], labels_BT[labels_BT != IGNORED_LABEL])
        if self.name != "generation":
            list_sum = self._per_list(out["read_logits"], batch["ranks"]).losses_B.sum()
        return LossSums(token_sum, list_sum)

    def _per_list(self, scores_BN: Tensor, ranks_BN: Tensor) -> ListLosses:
        mask_BN = ranks_BN > 0
        if self.ranking_loss == "ranknet":
            weights = ranks_BN if self.weighted else None
            return ranknet_per_list(scores_BN, -ranks_BN.float(), ranks_BN=weights, mask_BN=mask_BN)
        if self.ranking_loss == "listnet":
            gold_BN = own_scores_as_gold(scores_BN.detach(), ranks_BN, mask_BN=mask_BN)
            return listnet_per_list(scores_BN, gold_BN, mask_BN=mask_BN)
        return lambda_per_list(scores_BN, ranks_as_gold(ranks_BN, mask_BN=mask_BN), mask_BN=mask_BN)

    def parts(self, sums: LossSums, counts: StepCounts) -> LossParts:
        """Return token mean + weight x list mean, both over the optimizer step."""
        token_loss = sums.tokens / counts.tokens.clamp(min=1)
        list_loss = sums.lists / counts.lists.clamp(min=1)
        weight = self.weight if self.name == "combined" else 1.0
        return LossParts(token_loss + weight * list_loss, token_loss, list_loss)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointwiseObjective:
    """Softmax cross-entropy of groups (RankLLaMA, arXiv:2310.08319), binary cross-entropy of pairs, or distillation."""

    name: str
    """cross-entropy, binary-cross-entropy, kl or margin."""
    group_size: int
    teacher_temperature: float = 1.0
    student_temperature: float = 1.0
    label_weight: float = 0.0
    """kl and margin: weight of the added cross-entropy."""

    def counts(self, batch: Batch) -> StepCounts:
        """Count groups."""
        rows = batch["input_ids"].shape[0]
        device = batch["input_ids"].device
        return StepCounts(torch.tensor(0, device=device), torch.tensor(rows // self.group_size, device=device))

    def sums(self, model: Any, batch: Batch) -> LossSums:
        """Score all pairs at their last token, and sum the losses of their groups."""
        out = model(**{name: batch[name] for name in _READ_OF_PAIRS if name in batch})
        scores_M = out["scores"] if "scores" in out else _score_of_tokens(out["read_logits"])
        scores_BG = as_groups(scores_M, group_size=self.group_size)
        return LossSums(torch.zeros((), device=scores_M.device), self._mean(scores_BG, batch) * scores_BG.shape[0])

    def _mean(self, scores_BG: Tensor, batch: Batch) -> Tensor:
        if self.name == "cross-entropy":
            return pointwise_cross_entropy(scores_BG)
        if self.name == "binary-cross-entropy":
            return pair_cross_entropy(scores_BG)
        taught = self._taught(scores_BG, batch)
        return taught + self.label_weight * pointwise_cross_entropy(scores_BG) if self.label_weight else taught

    def _taught(self, scores_BG: Tensor, batch: Batch) -> Tensor:
        if self.name == "margin":
            return margin_mse(scores_BG, batch["teacher_scores"])
        return distillation_kl(
            scores_BG,
            batch["teacher_scores"],
            teacher_temperature=self.teacher_temperature,
            student_temperature=self.student_temperature,
        )

    def parts(self, sums: LossSums, counts: StepCounts) -> LossParts:
        """Return the mean over groups."""
        list_loss = sums.lists / counts.lists.clamp(min=1)
        return LossParts(list_loss, torch.zeros_like(list_loss), list_loss)


def _score_of_tokens(logits_MK: Tensor) -> Tensor:
    """Return scores_M from the logits of one token, or of a positive and a negative token."""
    return logits_MK[:, 0] - logits_MK[:, 1] if logits_MK.shape[1] == 2 else logits_MK[:, 0]

"""What is minimised: sums over one micro-batch, divided by the tokens and lists of the whole optimizer step.

A mean per micro-batch would weigh a short answer's tokens more than a long one's, and would change with the split into
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
"""What a model is given of pairs, where the batch has it."""


class StepCounts(NamedTuple):
    """What a loss is a mean over. Scalars."""

    tokens: Tensor
    """Target tokens."""
    lists: Tensor
    """Lists or groups that count."""


class LossSums(NamedTuple):
    """The loss of one micro-batch before any division. Scalars."""

    tokens: Tensor
    """Negative log-likelihood of the target tokens, in nats."""
    lists: Tensor
    """Ranking loss, summed over lists or groups."""


class LossParts(NamedTuple):
    """A micro-batch's share of the optimizer step's loss. Scalars."""

    total: Tensor
    token_loss: Tensor
    """Its share of the mean over target tokens."""
    list_loss: Tensor
    """Its share of the mean over lists, before the weight."""


class Objective(Protocol):
    """A loss over batches."""

    def counts(self, batch: Batch) -> StepCounts:
        """What the batch adds to the divisors; known before the forward pass."""

    def sums(self, model: Any, batch: Batch) -> LossSums:
        """The forward pass and the sums of its losses."""

    def parts(self, sums: LossSums, counts: StepCounts) -> LossParts:
        """The share of the loss. counts: of the whole optimizer step, all processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseObjective:
    """Generation, ranking, or both (FIRST, arXiv:2406.15657)."""

    name: str
    """generation, ranking or combined."""
    ranking_loss: str = "ranknet"
    weighted: bool = True
    """RankNet: weigh pairs by 1 / (rank_i + rank_j)."""
    weight: float = 10.0
    """What the ranking loss is multiplied by in `combined`."""

    def counts(self, batch: Batch) -> StepCounts:
        """Target tokens, and lists of at least two passages; a list of one orders nothing."""
        zero = torch.zeros((), dtype=torch.int64, device=batch["input_ids"].device)
        labels, ranks = batch.get("labels"), batch.get("ranks")
        return StepCounts(
            zero if labels is None else (labels != IGNORED_LABEL).sum(),
            zero if ranks is None else ((ranks > 0).sum(dim=1) > 1).sum(),
        )

    def sums(self, model: Any, batch: Batch) -> LossSums:
        """Logits are computed where they are read only: at target tokens, and for the identifiers at the `[`."""
        names = ("input_ids", "labels")
        if self.name != "generation" or not torch.is_grad_enabled():  # generation reads the order to measure it only
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
        """Token mean + weight x mean over lists, both over the optimizer step."""
        token_loss = sums.tokens / counts.tokens.clamp(min=1)
        list_loss = sums.lists / counts.lists.clamp(min=1)
        weight = self.weight if self.name == "combined" else 1.0
        return LossParts(token_loss + weight * list_loss, token_loss, list_loss)


@dataclass(frozen=True, slots=True, kw_only=True)
class PointwiseObjective:
    """Softmax cross-entropy in groups (RankLLaMA, arXiv:2310.08319), cross-entropy of pairs, or a teacher's scores."""

    name: str
    """cross-entropy, binary-cross-entropy, kl or margin."""
    group_size: int
    teacher_temperature: float = 1.0
    student_temperature: float = 1.0
    label_weight: float = 0.0
    """kl and margin: of the cross-entropy that is added."""

    def counts(self, batch: Batch) -> StepCounts:
        """Groups."""
        rows = batch["input_ids"].shape[0]
        device = batch["input_ids"].device
        return StepCounts(torch.tensor(0, device=device), torch.tensor(rows // self.group_size, device=device))

    def sums(self, model: Any, batch: Batch) -> LossSums:
        """The scores of all pairs, at each one's last token, and the loss of their groups."""
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
        """The mean over groups."""
        list_loss = sums.lists / counts.lists.clamp(min=1)
        return LossParts(list_loss, torch.zeros_like(list_loss), list_loss)


def _score_of_tokens(logits_MK: Tensor) -> Tensor:
    """scores_M of the logits of one token, or of a positive and a negative one."""
    return logits_MK[:, 0] - logits_MK[:, 1] if logits_MK.shape[1] == 2 else logits_MK[:, 0]

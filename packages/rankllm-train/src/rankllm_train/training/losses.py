"""Losses over lists of passages, over groups of one positive and its negatives, and over target tokens.

Pure functions of tensors. Computed in float32, or float64 if the scores are; a NaN score gives a NaN loss.
Shapes: B lists or groups, N passages per list, G passages per group, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

IGNORED_LABEL = -100
"""Label of tokens that are not targets, as in transformers."""

_LISTNET_EPSILON = 1e-10
_LAMBDA_EPSILON = 1e-10
"""Lower bounds of the originals' logarithms and divisions (castorini/rank_llm@1b3cabb training/utils/loss.py)."""


class ListLosses(NamedTuple):
    """One loss per list, before averaging: a trainer may have to divide by the lists of a whole optimizer step."""

    losses_B: Tensor
    """In nats (`lambda`: bits); 0 for lists that are not counted."""
    is_counted_B: Tensor
    """Whether the list carries information; a list of one passage, or without a pair to order, does not."""


def mean_over_lists(lists: ListLosses) -> Tensor:
    """Return the mean loss of the countable lists; 0 if there are none (the originals' loss is NaN then, and
    skipped)."""
    return lists.losses_B.sum() / lists.is_counted_B.sum().clamp(min=1)


def ranknet(scores_BN: Tensor, ranks_BN: Tensor, *, mask_BN: Tensor | None = None, discount: bool) -> Tensor:
    """Mean logistic loss over the pairs of a list where the first passage should outrank the second, mean over lists.

    scores_BN: logits, higher is better. ranks_BN: 1-based target ranks, 1 is best. mask_BN: True for passages, False
    for padding. discount: weight pair (i, j) by 1 / (rank_i + rank_j), as FIRST does (arXiv:2406.15657); the mean is
    over pairs, not over weights (castorini/rank_llm@1b3cabb training/utils/loss.py).
    Returns a scalar in nats. Raises ValueError when shapes differ.
    """
    weight_ranks_BN = ranks_BN if discount else None
    return mean_over_lists(ranknet_per_list(scores_BN, -_upcast(ranks_BN), ranks_BN=weight_ranks_BN, mask_BN=mask_BN))


def listnet(scores_BN: Tensor, ranks_BN: Tensor, *, mask_BN: Tensor | None = None) -> Tensor:
    """Cross-entropy of the scores' softmax with that of the same scores put in target order, mean over lists.

    Arguments as for `ranknet`. The target is a constant: no gradient flows through it (in the originals it does).
    Source: ListNet (Cao et al., ICML 2007), with the originals' target (castorini/rank_llm@1b3cabb
    training/utils/train_utils.py).
    Returns a scalar in nats. Raises ValueError when shapes differ.
    """
    gold_BN = own_scores_as_gold(scores_BN.detach(), ranks_BN, mask_BN=mask_BN)
    return mean_over_lists(listnet_per_list(scores_BN, gold_BN, mask_BN=mask_BN))


def lambda_loss(scores_BN: Tensor, ranks_BN: Tensor, *, mask_BN: Tensor | None = None) -> Tensor:
    """LambdaLoss (scheme ndcgLoss2) of target ranks, mean over the pairs of a list, mean over lists.

    Arguments as for `ranknet`. The gold score of a passage is m + 1 - rank in a list of m: the best gains 2^m - 1.
    Source: LambdaLoss (Wang et al., CIKM 2018), equation 18.
    Returns a scalar in bits. Raises ValueError when shapes differ.
    """
    return mean_over_lists(lambda_per_list(scores_BN, ranks_as_gold(ranks_BN, mask_BN=mask_BN), mask_BN=mask_BN))


def ranknet_per_list(
    scores_BN: Tensor, gold_BN: Tensor, *, ranks_BN: Tensor | None = None, mask_BN: Tensor | None = None
) -> ListLosses:
    """RankNet by gold scores, higher is better; passages of equal gold make no pair.

    ranks_BN: 1-based ranks to weight pairs by (`ranks_by_gold`); None: every pair has weight 1.
    """
    scores_BN, gold_BN, mask_BN = _padded_with_zeros(scores_BN, gold_BN, mask_BN)
    is_pair_BNN = _pairs(gold_BN, mask_BN)
    weights_BNN = is_pair_BNN.to(scores_BN.dtype)
    if ranks_BN is not None:
        _same_shape(scores_BN, ranks_BN, "ranks_BN")
        ranks_BN = ranks_BN.masked_fill(~mask_BN, 1).to(scores_BN.dtype)
        weights_BNN = weights_BNN / (ranks_BN[:, :, None] + ranks_BN[:, None, :])
    losses_BNN = functional.softplus(scores_BN[:, None, :] - scores_BN[:, :, None])
    return _mean_over_pairs(weights_BNN * losses_BNN, is_pair_BNN)


def listnet_per_list(scores_BN: Tensor, gold_BN: Tensor, *, mask_BN: Tensor | None = None) -> ListLosses:
    """ListNet by gold scores. The mask defines padding: a score of -1, the originals' padding value, is a valid
    score."""
    scores_BN, gold_BN, mask_BN = _padded_with_zeros(scores_BN, gold_BN, mask_BN)
    # A list of padding only has no softmax; it gets a dummy one here and is not counted below.
    is_shut_BN = ~mask_BN & mask_BN.any(dim=1, keepdim=True)
    target_BN = gold_BN.masked_fill(is_shut_BN, -math.inf).softmax(dim=1)
    predicted_BN = scores_BN.masked_fill(is_shut_BN, -math.inf).softmax(dim=1)
    losses_B = -(target_BN * (predicted_BN + _LISTNET_EPSILON).log()).sum(dim=1)
    is_counted_B = (mask_BN.sum(dim=1) > 1) | losses_B.isnan()
    return ListLosses(torch.where(is_counted_B, losses_B, 0.0), is_counted_B)


def lambda_per_list(scores_BN: Tensor, gold_BN: Tensor, *, mask_BN: Tensor | None = None) -> ListLosses:
    """LambdaLoss (ndcgLoss2) by gold scores, with gain 2^gold - 1, where a negative gold counts as 0 (no gain).

    Pairs are weighted by the difference of their gains and by the distance of their ranks by score.
    """
    scores_BN, gold_BN, mask_BN = _padded_with_zeros(scores_BN, gold_BN, mask_BN)
    order_BN = _descending_order(scores_BN, mask_BN)
    scores_BN, gold_BN, mask_BN = (values_BN.gather(1, order_BN) for values_BN in (scores_BN, gold_BN, mask_BN))
    gains_BN = _normalised_gains(gold_BN)
    position_N = torch.arange(scores_BN.shape[1], device=scores_BN.device, dtype=scores_BN.dtype)
    # There is no pair at distance 0; 1 replaces it because 1 / log2(1 + 0) is infinite.
    distance_NN = (position_N[:, None] - position_N[None, :]).abs().clamp(min=1)
    discounts_NN = 1 / (1 + distance_NN).log2() - 1 / (2 + distance_NN).log2()
    weights_BNN = discounts_NN * (gains_BN[:, :, None] - gains_BN[:, None, :]).abs()
    least = math.log2(_LAMBDA_EPSILON)
    # log2(max(sigmoid, eps) ^ weight) as a product, which does not underflow.
    bits_BNN = functional.logsigmoid(scores_BN[:, :, None] - scores_BN[:, None, :]) / math.log(2)
    bits_BNN = (weights_BNN * bits_BNN.clamp(min=least)).clamp(min=least)
    is_pair_BNN = _pairs(gold_BN, mask_BN)
    return _mean_over_pairs(-bits_BNN * is_pair_BNN, is_pair_BNN)


def ranks_as_gold(ranks_BN: Tensor, *, mask_BN: Tensor | None = None) -> Tensor:
    """Return gold scores m, m - 1, ..., 1 (float32) for target ranks 1, 2, ..., m in a list of length m."""
    mask_BN = _given_mask(ranks_BN, mask_BN)
    gold_BN = mask_BN.sum(dim=1, keepdim=True) + 1 - ranks_BN
    return gold_BN.masked_fill(~mask_BN, 0).to(torch.float32)


def own_scores_as_gold(scores_BN: Tensor, ranks_BN: Tensor, *, mask_BN: Tensor | None = None) -> Tensor:
    """The originals' gold scores: the passage of target rank r gets the r-th highest of the list's own scores.

    Gradient flows through them unless the scores come detached. ranks_BN: 1-based, a permutation of 1..m in each list.
    """
    scores_BN, ranks_BN, mask_BN = _padded_with_zeros(scores_BN, ranks_BN, mask_BN)
    sorted_BN = scores_BN.gather(1, _descending_order(scores_BN, mask_BN))
    place_BN = (ranks_BN - 1).masked_fill(~mask_BN, 0).to(torch.int64)
    return sorted_BN.gather(1, place_BN).masked_fill(~mask_BN, 0)


def ranks_by_gold(gold_BN: Tensor, *, mask_BN: Tensor | None = None) -> Tensor:
    """Return 1-based ranks by descending gold score; ties keep their order. Padding comes after its list."""
    mask_BN = _given_mask(gold_BN, mask_BN)
    order_BN = _descending_order(gold_BN, mask_BN)
    return order_BN.argsort(dim=1) + 1


def as_groups(scores_M: Tensor, *, group_size: int) -> Tensor:
    """Reshape scores of consecutive groups to one row per group. Raises ValueError if a group is incomplete.

    The number of groups follows from the scores, so a smaller last batch does not mix groups as in the original
    (texttron/tevatron@dd06310 src/tevatron/reranker/modeling.py).
    """
    if scores_M.dim() != 1 or group_size < 1 or scores_M.shape[0] % group_size:
        raise ValueError(f"expected whole groups of {group_size} scores in one dimension, got {tuple(scores_M.shape)}")
    return scores_M.view(-1, group_size)


def pointwise_cross_entropy(scores_BG: Tensor) -> Tensor:
    """Softmax cross-entropy of each group, whose positive is at index 0; mean over groups.

    Source: RankLLaMA (arXiv:2310.08319), section 2.2. Returns a scalar in nats. Raises ValueError unless 2-D.
    """
    scores_BG = _groups(scores_BG, "scores_BG")
    return -scores_BG.log_softmax(dim=1)[:, 0].mean()


def pair_cross_entropy(scores_BG: Tensor) -> Tensor:
    """Binary cross-entropy of each pair's score, a logit: the positive is at index 0 of its group; mean over pairs.

    Source: Nogueira and Cho (arXiv:1901.04085), equation 1. Returns a scalar in nats. Raises ValueError unless 2-D.
    """
    scores_BG = _groups(scores_BG, "scores_BG")
    # -log sigmoid(s) = softplus(-s) of the positive, -log(1 - sigmoid(s)) = softplus(s) of a negative.
    return functional.softplus(torch.cat([-scores_BG[:, :1], scores_BG[:, 1:]], dim=1)).mean()


def distillation_kl(
    student_BG: Tensor, teacher_BG: Tensor, *, teacher_temperature: float, student_temperature: float
) -> Tensor:
    """KL divergence from the teacher's softmax to the student's, mean over groups, times student_temperature squared.

    The teacher's scores are constants. Source: Hinton et al. (arXiv:1503.02531), scaled as in
    texttron/tevatron@dd06310 src/tevatron/megatron/engine.py.
    Returns a scalar in nats. Raises ValueError when shapes differ and when a temperature is not positive.
    """
    if not (teacher_temperature > 0 and student_temperature > 0):
        raise ValueError(f"need temperatures > 0, got teacher {teacher_temperature}, student {student_temperature}")
    student_BG, teacher_BG = _groups(student_BG, "student_BG"), _groups(teacher_BG, "teacher_BG").detach()
    _same_shape(student_BG, teacher_BG, "teacher_BG")
    target_BG = (teacher_BG / teacher_temperature).log_softmax(dim=1)
    predicted_BG = (student_BG / student_temperature).log_softmax(dim=1)
    divergence_B = (target_BG.exp() * (target_BG - predicted_BG)).sum(dim=1)
    return divergence_B.mean() * student_temperature**2


def margin_mse(student_BG: Tensor, teacher_BG: Tensor) -> Tensor:
    """Mean squared error of the margins between the positive, at index 0, and each negative of its group.

    The teacher's scores are constants. Source: Hofstätter et al. (arXiv:2010.02666).
    Returns a scalar in squared score units. Raises ValueError when shapes differ and where there is no negative.
    """
    student_BG, teacher_BG = _groups(student_BG, "student_BG"), _groups(teacher_BG, "teacher_BG").detach()
    _same_shape(student_BG, teacher_BG, "teacher_BG")
    if student_BG.shape[1] < 2:
        raise ValueError(
            f"expected a positive and at least one negative per group, got shape {tuple(student_BG.shape)}"
        )
    error_BG = (student_BG[:, :1] - student_BG[:, 1:]) - (teacher_BG[:, :1] - teacher_BG[:, 1:])
    return error_BG.square().mean()


def sum_token_nll(logits_TV: Tensor, labels_T: Tensor) -> tuple[Tensor, Tensor]:
    """Return the summed negative log-likelihood of the target tokens in nats, and their number (int64), as scalars.

    logits_TV: row t predicts labels_T[t] (already shifted). Rows with label IGNORED_LABEL are skipped.
    Returns a sum and a count instead of a mean, since all tokens of an optimizer step share one mean.
    Raises ValueError if shapes differ.
    """
    if logits_TV.dim() != 2 or labels_T.shape != logits_TV.shape[:1]:
        raise ValueError(f"expected logits (T, V), labels (T,); got {tuple(logits_TV.shape)}, {tuple(labels_T.shape)}")
    is_target_T = labels_T != IGNORED_LABEL
    # Selected first, so that only rows that are read are copied to float32.
    nll = functional.cross_entropy(_upcast(logits_TV[is_target_T]), labels_T[is_target_T], reduction="sum")
    return nll, is_target_T.sum()


def _upcast(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _same_shape(expected: Tensor, given: Tensor, name: str) -> None:
    if given.shape != expected.shape:
        raise ValueError(f"{name}: expected the shape {tuple(expected.shape)} of the scores, got {tuple(given.shape)}")


def _groups(scores_BG: Tensor, name: str) -> Tensor:
    if scores_BG.dim() != 2 or scores_BG.shape[1] < 1:
        raise ValueError(f"{name}: expected the shape (groups, passages per group), got {tuple(scores_BG.shape)}")
    return _upcast(scores_BG)


def _given_mask(scores_BN: Tensor, mask_BN: Tensor | None) -> Tensor:
    if scores_BN.dim() != 2:
        raise ValueError(f"scores: expected the shape (lists, passages per list), got {tuple(scores_BN.shape)}")
    if mask_BN is None:
        return torch.ones_like(scores_BN, dtype=torch.bool)
    _same_shape(scores_BN, mask_BN, "mask_BN")
    return mask_BN.to(torch.bool)


def _padded_with_zeros(scores_BN: Tensor, gold_BN: Tensor, mask_BN: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return validated scores, gold and mask. Values in padding, even NaN, reach neither loss nor gradient."""
    mask_BN = _given_mask(scores_BN, mask_BN)
    _same_shape(scores_BN, gold_BN, "gold or ranks")
    scores_BN = _upcast(scores_BN)
    return scores_BN.masked_fill(~mask_BN, 0), gold_BN.to(scores_BN.dtype).masked_fill(~mask_BN, 0), mask_BN


def _descending_order(scores_BN: Tensor, mask_BN: Tensor) -> Tensor:
    """Indices by descending score, ties in order; padding last."""
    return scores_BN.masked_fill(~mask_BN, -math.inf).argsort(dim=1, descending=True, stable=True)


def _pairs(gold_BN: Tensor, mask_BN: Tensor) -> Tensor:
    """is_pair_BNN[b, i, j]: i and j are passages and i should outrank j."""
    is_valid_BNN = mask_BN[:, :, None] & mask_BN[:, None, :]
    return (gold_BN[:, :, None] > gold_BN[:, None, :]) & is_valid_BNN


def _mean_over_pairs(losses_BNN: Tensor, is_pair_BNN: Tensor) -> ListLosses:
    """losses_BNN must be 0 where there is no pair, or NaN: a NaN score must not count as a list without pairs."""
    n_pairs_B = is_pair_BNN.sum(dim=(1, 2))
    losses_B = losses_BNN.sum(dim=(1, 2)) / n_pairs_B.clamp(min=1)
    return ListLosses(losses_B, (n_pairs_B > 0) | losses_B.isnan())


def _normalised_gains(gold_BN: Tensor) -> Tensor:
    """(2^gold - 1) / ideal DCG. All terms are scaled by 2^-highest, since lists of 128 would overflow float32."""
    gold_BN = gold_BN.clamp(min=0)
    highest_B1 = gold_BN.detach().amax(dim=1, keepdim=True)
    one_B1 = torch.exp2(-highest_B1)
    gains_BN = torch.exp2(gold_BN - highest_B1) - one_B1
    rank_N = torch.arange(1, gold_BN.shape[1] + 1, device=gold_BN.device, dtype=gold_BN.dtype)
    best_gains_BN = gains_BN.sort(dim=1, descending=True).values
    best_dcg_B1 = (best_gains_BN / (1 + rank_N).log2()).sum(dim=1, keepdim=True)
    return gains_BN / torch.maximum(best_dcg_B1, _LAMBDA_EPSILON * one_B1)

"""Losses of lists of passages, of groups of one positive and its negatives, and of target tokens.

Pure functions of tensors. They compute in float32, or in float64 where the scores are; a NaN score makes a NaN loss.
Shapes: B lists or groups, N passages per list, G passages per group, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

IGNORED_LABEL = -100
"""Label of a token that is no target, as transformers writes it."""

_LISTNET_EPSILON = 1e-10
_LAMBDA_EPSILON = 1e-10
"""Lower bounds of the originals' logarithms and divisions (castorini/rank_llm@1b3cabb training/utils/loss.py)."""


class ListLosses(NamedTuple):
    """One loss a list, before any mean: a trainer may have to divide by the lists of a whole optimizer step."""

    losses_B: Tensor
    """In nats (`lambda`: bits); 0 where the list is not counted."""
    is_counted_B: Tensor
    """Whether the list says anything: one of a single passage, or without a pair to order, does not."""


def mean_over_lists(lists: ListLosses) -> Tensor:
    """The mean loss of the lists that count; 0 where none does (the originals' loss is NaN there, and is skipped)."""
    return lists.losses_B.sum() / lists.is_counted_B.sum().clamp(min=1)


def ranknet(scores_BN: Tensor, ranks_BN: Tensor, *, mask_BN: Tensor | None = None, discount: bool) -> Tensor:
    """Mean logistic loss over the pairs of a list where the first passage should outrank the second, mean over lists.

    scores_BN: logits, higher is better. ranks_BN: 1-based target ranks, 1 is best. mask_BN: True for passages, False
    for padding. discount: weigh pair (i, j) by 1 / (rank_i + rank_j), as FIRST does (arXiv:2406.15657); the mean is
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

    ranks_BN: 1-based ranks to weigh pairs by (`ranks_by_gold`); None: every pair weighs 1.
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
    """ListNet by gold scores. Padding is known by the mask: a score of -1, the originals' padding, is a score."""
    scores_BN, gold_BN, mask_BN = _padded_with_zeros(scores_BN, gold_BN, mask_BN)
    # A list of padding alone has no softmax; it is given one here and is not counted below.
    is_shut_BN = ~mask_BN & mask_BN.any(dim=1, keepdim=True)
    target_BN = gold_BN.masked_fill(is_shut_BN, -math.inf).softmax(dim=1)
    predicted_BN = scores_BN.masked_fill(is_shut_BN, -math.inf).softmax(dim=1)
    losses_B = -(target_BN * (predicted_BN + _LISTNET_EPSILON).log()).sum(dim=1)
    is_counted_B = (mask_BN.sum(dim=1) > 1) | losses_B.isnan()
    return ListLosses(torch.where(is_counted_B, losses_B, 0.0), is_counted_B)


def lambda_per_list(scores_BN: Tensor, gold_BN: Tensor, *, mask_BN: Tensor | None = None) -> ListLosses:
    """LambdaLoss (ndcgLoss2) by gold scores: gain 2^gold - 1, where a gold below 0 is 0 (so it gains nothing).

    Pairs weigh by the difference of their gains and by how far apart the scores place them.
    """
    scores_BN, gold_BN, mask_BN = _padded_with_zeros(scores_BN, gold_BN, mask_BN)
    order_BN = _descending_order(scores_BN, mask_BN)
    scores_BN, gold_BN, mask_BN = (values_BN.gather(1, order_BN) for values_BN in (scores_BN, gold_BN, mask_BN))
    gains_BN = _normalised_gains(gold_BN)
    position_N = torch.arange(scores_BN.shape[1], device=scores_BN.device, dtype=scores_BN.dtype)
    # At distance 0 there is no pair; 1 stands in for it because 1 / log2(1 + 0) is infinite.
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
    """Gold scores m, m - 1, ..., 1 of target ranks 1, 2, ..., m, where m is the length of the list. float32."""
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
    """1-based ranks by falling gold score; of equal ones the first comes first. Padding comes after its list."""
    mask_BN = _given_mask(gold_BN, mask_BN)
    order_BN = _descending_order(gold_BN, mask_BN)
    return order_BN.argsort(dim=1) + 1


def as_groups(scores_M: Tensor, *, group_size: int) -> Tensor:
    """Scores of whole groups, one after the other, as a row a group. Raises ValueError where a group is not whole.

    The number of groups follows from the scores: a last batch that is smaller does not mix groups, as the originals'
    does (texttron/tevatron@dd06310 src/tevatron/reranker/modeling.py).
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
        raise ValueError(f"expected a positive and at least one negative a group, got shape {tuple(student_BG.shape)}")
    error_BG = (student_BG[:, :1] - student_BG[:, 1:]) - (teacher_BG[:, :1] - teacher_BG[:, 1:])
    return error_BG.square().mean()


def sum_token_nll(logits_TV: Tensor, labels_T: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of the target tokens, summed in nats, and their number (int64). Both are scalars.

    logits_TV: row t predicts labels_T[t] (already shifted). Rows whose label is IGNORED_LABEL are left out.
    A sum and a number, not a mean: the tokens of a whole optimizer step share one mean.
    Raises ValueError when shapes differ.
    """
    if logits_TV.dim() != 2 or labels_T.shape != logits_TV.shape[:1]:
        raise ValueError(f"expected logits (T, V), labels (T,); got {tuple(logits_TV.shape)}, {tuple(labels_T.shape)}")
    is_target_T = labels_T != IGNORED_LABEL
    # Chosen first, so that only rows that are read are copied to float32.
    nll = functional.cross_entropy(_upcast(logits_TV[is_target_T]), labels_T[is_target_T], reduction="sum")
    return nll, is_target_T.sum()


def _upcast(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _same_shape(expected: Tensor, given: Tensor, name: str) -> None:
    if given.shape != expected.shape:
        raise ValueError(f"{name}: expected the shape {tuple(expected.shape)} of the scores, got {tuple(given.shape)}")


def _groups(scores_BG: Tensor, name: str) -> Tensor:
    if scores_BG.dim() != 2 or scores_BG.shape[1] < 1:
        raise ValueError(f"{name}: expected the shape (groups, passages a group), got {tuple(scores_BG.shape)}")
    return _upcast(scores_BG)


def _given_mask(scores_BN: Tensor, mask_BN: Tensor | None) -> Tensor:
    if scores_BN.dim() != 2:
        raise ValueError(f"scores: expected the shape (lists, passages a list), got {tuple(scores_BN.shape)}")
    if mask_BN is None:
        return torch.ones_like(scores_BN, dtype=torch.bool)
    _same_shape(scores_BN, mask_BN, "mask_BN")
    return mask_BN.to(torch.bool)


def _padded_with_zeros(scores_BN: Tensor, gold_BN: Tensor, mask_BN: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, gold and mask, checked. Whatever stands in padding, NaN even, reaches neither loss nor gradient."""
    mask_BN = _given_mask(scores_BN, mask_BN)
    _same_shape(scores_BN, gold_BN, "gold or ranks")
    scores_BN = _upcast(scores_BN)
    return scores_BN.masked_fill(~mask_BN, 0), gold_BN.to(scores_BN.dtype).masked_fill(~mask_BN, 0), mask_BN


def _descending_order(scores_BN: Tensor, mask_BN: Tensor) -> Tensor:
    """Indices by falling score, the first of equals first; padding last."""
    return scores_BN.masked_fill(~mask_BN, -math.inf).argsort(dim=1, descending=True, stable=True)


def _pairs(gold_BN: Tensor, mask_BN: Tensor) -> Tensor:
    """is_pair_BNN[b, i, j]: both are passages and i should outrank j."""
    is_valid_BNN = mask_BN[:, :, None] & mask_BN[:, None, :]
    return (gold_BN[:, :, None] > gold_BN[:, None, :]) & is_valid_BNN


def _mean_over_pairs(losses_BNN: Tensor, is_pair_BNN: Tensor) -> ListLosses:
    """losses_BNN must be 0 where there is no pair, or NaN: a NaN score is not to pass for a list without pairs."""
    n_pairs_B = is_pair_BNN.sum(dim=(1, 2))
    losses_B = losses_BNN.sum(dim=(1, 2)) / n_pairs_B.clamp(min=1)
    return ListLosses(losses_B, (n_pairs_B > 0) | losses_B.isnan())


def _normalised_gains(gold_BN: Tensor) -> Tensor:
    """(2^gold - 1) / best possible DCG. All terms are scaled by 2^-highest, or lists of 128 would overflow float32."""
    gold_BN = gold_BN.clamp(min=0)
    highest_B1 = gold_BN.detach().amax(dim=1, keepdim=True)
    one_B1 = torch.exp2(-highest_B1)
    gains_BN = torch.exp2(gold_BN - highest_B1) - one_B1
    rank_N = torch.arange(1, gold_BN.shape[1] + 1, device=gold_BN.device, dtype=gold_BN.dtype)
    best_gains_BN = gains_BN.sort(dim=1, descending=True).values
    best_dcg_B1 = (best_gains_BN / (1 + rank_N).log2()).sum(dim=1, keepdim=True)
    return gains_BN / torch.maximum(best_dcg_B1, _LAMBDA_EPSILON * one_B1)

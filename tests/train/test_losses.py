"""Losses compared with double loops in float64, hand-computed values, and the signs of their gradients."""

from __future__ import annotations

import math
import random

import pytest

torch = pytest.importorskip("torch")

from rankllm_train.training.losses import (  # noqa: E402
    IGNORED_LABEL,
    as_groups,
    distillation_kl,
    lambda_loss,
    lambda_per_list,
    listnet,
    listnet_per_list,
    margin_mse,
    mean_over_lists,
    own_scores_as_gold,
    pair_cross_entropy,
    pointwise_cross_entropy,
    ranknet,
    ranknet_per_list,
    ranks_as_gold,
    ranks_by_gold,
    sum_token_nll,
)

NAN = math.nan
RANDOM = random.Random(1)
LISTS = [
    ([1.0, 3.0, 2.0, 0.5], [3, 1, 4, 2]),
    ([-1.5, -3.0, -2.0, -0.5], [3, 1, 4, 2]),
    ([0.25, -0.75], [2, 1]),
    ([12.0, 14.5, 14.25, 11.0, 13.0, 9.5, 10.0], [7, 1, 3, 2, 6, 5, 4]),
    ([RANDOM.gauss(0, 3) for _ in range(20)], RANDOM.sample(range(1, 21), 20)),
]
"""Scores and 1-based target ranks, in prompt order."""

LOSSES = {
    "ranknet": lambda scores, ranks, mask=None: ranknet(scores, ranks, mask_BN=mask, discount=False),
    "ranknet, discounted": lambda scores, ranks, mask=None: ranknet(scores, ranks, mask_BN=mask, discount=True),
    "listnet": lambda scores, ranks, mask=None: listnet(scores, ranks, mask_BN=mask),
    "lambda": lambda scores, ranks, mask=None: lambda_loss(scores, ranks, mask_BN=mask),
}


# The same losses with loops and Python floats, written from the formulas.


def plain_ranknet(scores, ranks, discount):
    total, n_pairs = 0.0, 0
    for s_i, r_i in zip(scores, ranks, strict=True):
        for s_j, r_j in zip(scores, ranks, strict=True):
            if r_i < r_j:
                total += math.log1p(math.exp(s_j - s_i)) / (r_i + r_j if discount else 1)
                n_pairs += 1
    return total / n_pairs


def plain_listnet(scores, gold):
    def softmax(values):
        return [math.exp(value) / sum(math.exp(other) for other in values) for value in values]

    return -sum(t * math.log(p + 1e-10) for t, p in zip(softmax(gold), softmax(scores), strict=True))


def plain_lambda(scores, gold):
    placed = sorted(zip(scores, gold, strict=True), key=lambda item: -item[0])
    gains = [2 ** max(t, 0.0) - 1 for _, t in placed]
    best = max(sum(g / math.log2(1 + p) for p, g in enumerate(sorted(gains, reverse=True), start=1)), 1e-10)
    total, n_pairs = 0.0, 0
    for a, (s_a, t_a) in enumerate(placed):
        for b, (s_b, t_b) in enumerate(placed):
            if t_a > t_b:
                distance = abs(a - b)
                discount = abs(1 / math.log2(1 + distance) - 1 / math.log2(2 + distance))
                weight = discount * abs(gains[a] - gains[b]) / best
                probability = max(1 / (1 + math.exp(s_b - s_a)), 1e-10)
                total -= math.log2(max(probability**weight, 1e-10))
                n_pairs += 1
    return total / n_pairs


def own_gold(scores, ranks):
    falling = sorted(scores, reverse=True)
    return [falling[rank - 1] for rank in ranks]


def plain(name, scores, ranks):
    """The loss of one list by loops."""
    if name == "listnet":
        return plain_listnet(scores, own_gold(scores, ranks))
    if name == "lambda":
        return plain_lambda(scores, [len(ranks) + 1 - rank for rank in ranks])
    return plain_ranknet(scores, ranks, discount=name == "ranknet, discounted")


def numeric_gradient(function, scores, step=1e-6):
    gradient = []
    for position in range(len(scores)):
        up, down = list(scores), list(scores)
        up[position] += step
        down[position] -= step
        gradient.append((function(up) - function(down)) / (2 * step))
    return gradient


def tensors(scores, ranks, dtype=torch.float64):
    return torch.tensor([scores], dtype=dtype, requires_grad=True), torch.tensor([ranks])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("scores", "ranks"), LISTS)
def test_a_ranking_loss_is_the_double_loop_over_its_formula(name, scores, ranks):
    """Every pair, every weight, in float64."""
    loss = LOSSES[name](*tensors(scores, ranks))
    assert loss.item() == pytest.approx(plain(name, scores, ranks), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("scores", "ranks"), LISTS)
def test_a_ranking_loss_has_the_gradient_of_its_formula(name, scores, ranks):
    """Compared with finite differences of the double loop; ListNet's target is constant."""
    given, targets = tensors(scores, ranks)
    LOSSES[name](given, targets).backward()
    gold = own_gold(scores, ranks)

    def function(values):
        return plain_listnet(values, gold) if name == "listnet" else plain(name, values, ranks)

    assert given.grad[0].tolist() == pytest.approx(numeric_gradient(function, scores), abs=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_against_the_gradient_moves_a_list_towards_its_target(name):
    """The target's first passage, ranked last, is pushed up; its last, ranked first, is pushed down."""
    scores, ranks = tensors([2.0, 1.0, 0.0, -1.0], [4, 3, 2, 1])
    LOSSES[name](scores, ranks).backward()
    assert scores.grad[0, 3] < 0 < scores.grad[0, 0]


@pytest.mark.parametrize(
    ("scores", "discounted", "undiscounted", "listnet_value", "lambda_value"),
    [
        ([1.0, 3.0, 2.0, 0.5], 0.13111233456072016, 0.7513052304224711, 1.263431906663663, 0.06184984609050883),
        ([-1.5, -3.0, -2.0, -0.5], 0.28526367817532, None, None, 0.0),
    ],
)
def test_losses_have_the_values_computed_by_hand(scores, discounted, undiscounted, listnet_value, lambda_value):
    """Target [B] > [D] > [A] > [C]; the lambda values are for the list's own scores as gold.

    Computed in plain Python from the formulas of castorini/rank_llm@1b3cabb training/utils/loss.py and
    train_utils.py.
    """
    given, ranks = tensors(scores, [3, 1, 4, 2])
    assert ranknet(given, ranks, discount=True).item() == pytest.approx(discounted, rel=1e-12)
    if undiscounted is not None:
        assert ranknet(given, ranks, discount=False).item() == pytest.approx(undiscounted, rel=1e-12)
        assert listnet(given, ranks).item() == pytest.approx(listnet_value, rel=1e-12)
    by_own_scores = lambda_per_list(given, own_scores_as_gold(given, ranks))
    assert mean_over_lists(by_own_scores).item() == pytest.approx(lambda_value, rel=1e-12, abs=0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("padding", [0.0, -1.0, 1e30, NAN, math.inf])
def test_padded_lists_give_the_mean_of_the_single_lists(name, padding):
    """Lists of 4, 2, 7 and 20 passages with any values in the padding, even NaN; padding gets no gradient."""
    lists = [item for position, item in enumerate(LISTS) if position != 1]
    width = max(len(scores) for scores, _ in lists)
    scores = torch.tensor([scores + [padding] * (width - len(scores)) for scores, _ in lists], dtype=torch.float64)
    ranks = torch.tensor([ranks + [-100] * (width - len(ranks)) for _, ranks in lists])
    mask = torch.tensor([[position < len(scores) for position in range(width)] for scores, _ in lists])
    scores.requires_grad_()
    loss = LOSSES[name](scores, ranks, mask)
    loss.backward()
    assert loss.item() == pytest.approx(sum(plain(name, *item) for item in lists) / len(lists), rel=1e-12)
    assert not scores.grad[~mask].any()
    for row, (single, targets) in zip(scores.grad, lists, strict=True):
        alone, target = tensors(single, targets)
        LOSSES[name](alone, target).backward()
        assert (row[: len(single)] * len(lists)).tolist() == pytest.approx(alone.grad[0].tolist(), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_padding_may_stand_before_a_list(name):
    """The mask defines the passages; they need not come first."""
    scores, ranks = LISTS[3]
    mask = torch.tensor([[False, True, True, False, True, True, True, True, True, False]])
    wide_scores, wide_ranks = torch.full((1, 10), 99.0, dtype=torch.float64), torch.zeros((1, 10), dtype=torch.int64)
    wide_scores[mask], wide_ranks[mask] = torch.tensor(scores, dtype=torch.float64), torch.tensor(ranks)
    assert LOSSES[name](wide_scores, wide_ranks, mask).item() == pytest.approx(plain(name, scores, ranks), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_a_score_of_minus_one_is_a_score(name):
    """The originals' ListNet treats it as padding."""
    scores, ranks = [2.0, -1.0, 0.5, -1.0, 3.0], [5, 1, 4, 2, 3]
    assert LOSSES[name](*tensors(scores, ranks)).item() == pytest.approx(plain(name, scores, ranks), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_nan_score_makes_a_nan_loss(name, position):
    """Never a list without information: a broken run must be noticed."""
    scores = torch.tensor([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
    scores[0, position] = NAN
    assert math.isnan(LOSSES[name](scores, torch.tensor([[1, 2, 3], [1, 2, 3]])).item())
    for per_list in (ranknet_per_list, listnet_per_list, lambda_per_list):
        gold = own_scores_as_gold(scores, torch.tensor([[1, 2, 3], [1, 2, 3]]))
        assert math.isnan(mean_over_lists(per_list(scores, gold)).item())


@pytest.mark.parametrize("name", LOSSES)
def test_a_list_of_one_passage_counts_for_nothing(name):
    """It has no order to learn, and changes neither the mean nor, alone, any weight; the same for an empty list."""
    scores = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    ranks = torch.tensor([[3, 1, 2], [1, 0, 0], [0, 0, 0]])
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    assert LOSSES[name](scores, ranks, mask).item() == pytest.approx(plain(name, [1.0, 3.0, 2.0], [3, 1, 2]), rel=1e-6)
    nothing = LOSSES[name](scores[1:], ranks[1:], mask[1:])
    nothing.backward()
    assert nothing.item() == 0
    assert not scores.grad.any()


def test_gold_ties_make_no_pair():
    """Ranks 1, 1, 2: two pairs, and a list of equal ranks is not counted."""
    scores, ranks = tensors([0.5, 1.5, 1.0], [1, 1, 2])
    expected = (math.log1p(math.exp(1.0 - 0.5)) + math.log1p(math.exp(1.0 - 1.5))) / 2
    assert ranknet(scores, ranks, discount=False).item() == pytest.approx(expected, rel=1e-12)
    assert ranknet(scores, ranks, discount=True).item() == pytest.approx(expected / 3, rel=1e-12)
    losses, is_counted = ranknet_per_list(scores, torch.ones_like(scores))
    assert (losses.tolist(), is_counted.tolist()) == ([0.0], [False])
    assert not lambda_per_list(scores, torch.ones_like(scores)).is_counted_B.any()


@pytest.mark.parametrize("name", LOSSES)
def test_equal_scores_still_learn_their_target(name):
    """Score ties, as in bf16 logits, drop no pair, since pairs come from the target ranks. ListNet's target ties
    too."""
    scores, ranks = tensors([1.0, 1.0, 1.0], [2, 3, 1])
    loss = LOSSES[name](scores, ranks)
    loss.backward()
    assert loss.item() == pytest.approx(plain(name, [1.0, 1.0, 1.0], [2, 3, 1]), rel=1e-9)
    if name == "listnet":
        assert scores.grad.abs().max() < 1e-12
    else:
        assert scores.grad[0, 2] < scores.grad[0, 0] < scores.grad[0, 1]


def test_long_lists_do_not_overflow():
    """The best of 200 passages gains 2^200 - 1, which float32 cannot hold."""
    ranks = list(range(200, 0, -1))
    scores = [rank / 10 for rank in ranks]
    given, targets = tensors(scores, ranks, dtype=torch.float32)
    loss = lambda_loss(given, targets)
    loss.backward()
    assert loss.item() == pytest.approx(plain("lambda", scores, ranks), rel=1e-4)
    assert given.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_scores_are_computed_in_float32(name, dtype):
    """The scores are rounded to half precision, but the loss is computed in float32."""
    scores, ranks = tensors([1.25, 3.5, 2.0, 0.5], [3, 1, 4, 2], dtype=dtype)
    loss = LOSSES[name](scores, ranks)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(plain(name, [1.25, 3.5, 2.0, 0.5], [3, 1, 4, 2]), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_arguments_are_not_changed(name):
    """The loss modifies neither the scores nor the ranks nor the mask."""
    scores, ranks, mask = torch.tensor([[1.0, NAN]]), torch.tensor([[1, 7]]), torch.tensor([[True, False]])
    before = [str(value) for value in (scores, ranks, mask)]
    LOSSES[name](scores, ranks, mask)
    assert [str(value) for value in (scores, ranks, mask)] == before


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("scores", "ranks", "mask"),
    [
        (torch.zeros(2, 3), torch.ones(3), None),
        (torch.zeros(2, 3), torch.ones(2, 4), None),
        (torch.zeros(3), torch.ones(3), None),
        (torch.zeros(2, 3), torch.ones(2, 3), torch.ones(1, 3)),
    ],
)
def test_shapes_that_differ_are_refused(name, scores, ranks, mask):
    """Broadcasting would silently compute a different loss."""
    with pytest.raises(ValueError, match="expected the shape"):
        LOSSES[name](scores, ranks, mask)


def test_gold_scores_follow_the_target_ranks():
    """The expected values are written out by hand, for two lists of different length."""
    scores = torch.tensor([[1.0, 3.0, 2.0, 0.5], [4.0, 9.0, NAN, NAN]])
    ranks, mask = torch.tensor([[3, 1, 4, 2], [2, 1, 0, 0]]), torch.tensor([[True] * 4, [True, True, False, False]])
    assert own_scores_as_gold(scores, ranks, mask_BN=mask).tolist() == [[1.0, 3.0, 0.5, 2.0], [4.0, 9.0, 0.0, 0.0]]
    assert ranks_as_gold(ranks, mask_BN=mask).tolist() == [[2, 4, 1, 3], [1, 2, 0, 0]]
    assert ranks_by_gold(scores, mask_BN=mask).tolist() == [[3, 1, 2, 4], [2, 1, 3, 4]]


def test_equal_gold_scores_are_ranked_in_prompt_order():
    """Ties are broken as torch's CPU sort does in the original implementation."""
    assert ranks_by_gold(torch.tensor([[1.5, 1.5, -0.5, 1.5]])).tolist() == [[1, 2, 4, 3]]


def test_cross_entropy_takes_each_group_alone():
    """Expected values recorded from the loss in texttron/tevatron@dd06310 src/tevatron/reranker/modeling.py."""
    scores = torch.tensor([[2.0, 1, 0, -1], [0.5, 0.5, 0.5, 0.5]])
    assert pointwise_cross_entropy(scores).item() == pytest.approx(0.9132420298, rel=1e-6)
    assert pointwise_cross_entropy(scores[:1]).item() == pytest.approx(0.4401896986, rel=1e-6)
    assert pointwise_cross_entropy(scores[1:]).item() == pytest.approx(math.log(4), rel=1e-6)
    double = torch.tensor([[-1.25, 3.5, 0.125, 2.75]], dtype=torch.float64)
    assert pointwise_cross_entropy(double).item() == pytest.approx(5.1655714441, rel=1e-10)


def test_cross_entropy_pulls_the_positive_up_and_pushes_the_negatives_down():
    """The gradient of each group sums to zero, and groups in a batch are independent."""
    scores = torch.tensor([[0.3, -1.0, 2.0], [1.0, 1.0, 1.0]], requires_grad=True)
    pointwise_cross_entropy(scores[:1]).backward()
    assert scores.grad[0, 0] < 0 < scores.grad[0, 1] < scores.grad[0, 2]
    assert scores.grad[0].sum().item() == pytest.approx(0, abs=1e-6)
    assert not scores.grad[1].any()


def test_binary_cross_entropy_is_the_loop_over_its_pairs():
    """Each pair is scored independently: -log(sigmoid) for a positive, -log(1 - sigmoid) for a negative."""
    scores = [[2.0, -1.0, 0.5], [-3.0, 40.0, 0.0]]
    expected = [
        -math.log(1 / (1 + math.exp(-score))) if place == 0 else -math.log1p(-1 / (1 + math.exp(-score)))
        for group in scores
        for place, score in enumerate(group)
        if score < 40
    ]
    found = pair_cross_entropy(torch.tensor(scores, dtype=torch.float64)).item()
    assert found == pytest.approx((sum(expected) + 40.0) / 6, rel=1e-9)  # of a sure and wrong score: the score itself


def test_binary_cross_entropy_pulls_each_pair_its_way():
    """The gradient is sigmoid(s) - label, independent of the rest of the group."""
    scores = torch.tensor([[0.5, -1.0, 2.0]], requires_grad=True)
    pair_cross_entropy(scores).backward()
    expected = (scores.detach().sigmoid() - torch.tensor([[1.0, 0.0, 0.0]])) / 3
    torch.testing.assert_close(scores.grad, expected)
    assert (scores.grad.sign() == torch.tensor([[-1.0, 1.0, 1.0]])).all()


def test_a_smaller_last_batch_does_not_mix_groups():
    """A last batch of two queries with four passages each, where the batch size is four: still two groups of four."""
    scores = torch.arange(8.0)
    assert as_groups(scores, group_size=4).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize(("shape", "group_size"), [((7,), 4), ((2, 4), 4), ((4,), 0)])
def test_a_group_that_is_not_whole_is_refused(shape, group_size):
    """The scores of a truncated group would be compared with those of another query."""
    with pytest.raises(ValueError, match="whole groups"):
        as_groups(torch.zeros(shape), group_size=group_size)


@pytest.mark.parametrize(
    ("teacher_temperature", "student_temperature", "expected"), [(2.0, 1.0, 0.5222949316), (1.0, 2.0, 3.9049703108)]
)
def test_distillation_has_the_recorded_values(teacher_temperature, student_temperature, expected):
    """Expected values recorded from the loss in texttron/tevatron@dd06310 src/tevatron/megatron; plain loops give the
    same.
    """
    student, teacher = [[2.0, 1, 0, -1], [0.5, 0.5, 0.5, 0.5]], [[4.0, 1, -2, -3], [6.0, 0, 0, -6]]
    temperatures = {"teacher_temperature": teacher_temperature, "student_temperature": student_temperature}
    loss = distillation_kl(torch.tensor(student), torch.tensor(teacher), **temperatures)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    total = 0.0
    for student_row, teacher_row in zip(student, teacher, strict=True):
        s = [math.exp(value / student_temperature) for value in student_row]
        t = [math.exp(value / teacher_temperature) for value in teacher_row]
        for s_i, t_i in zip(s, t, strict=True):
            p = t_i / sum(t)
            total += p * math.log(p / (s_i / sum(s)))
    assert expected == pytest.approx(total / 2 * student_temperature**2, rel=1e-9)


def test_distillation_follows_the_teacher_and_leaves_it_alone():
    """The passage the teacher prefers is pulled up; a student that agrees with the teacher has loss zero."""
    student, teacher = torch.zeros(1, 3, requires_grad=True), torch.tensor([[0.0, 2.0, -2.0]], requires_grad=True)
    distillation_kl(student, teacher, teacher_temperature=1, student_temperature=1).backward()
    assert student.grad[0, 1] < 0 < student.grad[0, 2]
    assert teacher.grad is None
    same = distillation_kl(teacher + 5, teacher, teacher_temperature=2, student_temperature=2)
    assert same.item() == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("teacher_temperature", "student_temperature"), [(0, 1), (1, 0), (-1, 1), (1, NAN)])
def test_a_temperature_that_is_not_positive_is_refused(teacher_temperature, student_temperature):
    """Zero would divide by zero, and a negative temperature would reverse the ranking."""
    scores = torch.zeros(1, 2)
    with pytest.raises(ValueError, match="temperatures > 0"):
        distillation_kl(
            scores, scores, teacher_temperature=teacher_temperature, student_temperature=student_temperature
        )


def test_margin_mse_compares_margins_not_scores():
    """Margins 1 and 3 against 2 and 0: (1 + 9) / 2; adding a constant to a group changes nothing."""
    student = torch.tensor([[5.0, 4.0, 2.0]], requires_grad=True)
    teacher = torch.tensor([[1.0, -1.0, 1.0]], requires_grad=True)
    loss = margin_mse(student, teacher)
    assert loss.item() == 5.0
    assert margin_mse(student + 7, teacher - 3).item() == 5.0
    loss.backward()
    assert student.grad[0].tolist() == [2.0, 1.0, -3.0]  # d/ds of ((s0-s1-2)^2 + (s0-s2-0)^2) / 2
    assert teacher.grad is None


def test_pointwise_losses_refuse_shapes_that_differ():
    """Broadcasting would compare scores of different queries."""
    with pytest.raises(ValueError, match="student_BG"):
        margin_mse(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match="teacher_BG"):
        margin_mse(torch.zeros(2, 3), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="at least one negative"):
        margin_mse(torch.zeros(2, 1), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="teacher_BG"):
        distillation_kl(torch.zeros(2, 3), torch.zeros(2, 1), teacher_temperature=1, student_temperature=1)
    with pytest.raises(ValueError, match="scores_BG"):
        pointwise_cross_entropy(torch.zeros(3))
    with pytest.raises(ValueError, match="expected the shape"):
        pair_cross_entropy(torch.zeros(3))


def test_token_loss_is_a_sum_and_a_number_over_target_tokens():
    """Uniform logits over 8 tokens cost log 8 each; ignored rows cost nothing, even if they are NaN."""
    logits = torch.zeros(4, 8)
    logits[1] = NAN
    logits.requires_grad_()
    total, number = sum_token_nll(logits, torch.tensor([3, IGNORED_LABEL, 0, 7]))
    assert total.item() == pytest.approx(3 * math.log(8), rel=1e-6)
    assert number.item() == 3
    total.backward()
    assert not logits.grad[1].any()
    assert logits.grad[0, 3] < 0 < logits.grad[0, 0]


def test_token_loss_without_a_target_is_zero():
    """In a batch that contains prompts only, loss and gradient are zero, not NaN."""
    logits = torch.randn(2, 5, requires_grad=True)
    total, number = sum_token_nll(logits, torch.tensor([IGNORED_LABEL, IGNORED_LABEL]))
    total.backward()
    assert (total.item(), number.item()) == (0.0, 0)
    assert not logits.grad.any()


def test_token_loss_of_half_precision_logits_is_a_float32_sum():
    """1,000 tokens at log 64 each: in bf16 the sum would be accurate to 16 at best."""
    total, _ = sum_token_nll(torch.zeros(1000, 64, dtype=torch.bfloat16), torch.zeros(1000, dtype=torch.int64))
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(1000 * math.log(64), rel=1e-6)


@pytest.mark.parametrize(("logits_shape", "n_labels"), [((2, 3), 3), ((2, 3, 4), 2), ((3,), 3)])
def test_token_loss_refuses_shapes_that_differ(logits_shape, n_labels):
    """Each row needs exactly one label."""
    with pytest.raises(ValueError, match=r"logits \(T, V\)"):
        sum_token_nll(torch.zeros(logits_shape), torch.zeros(n_labels, dtype=torch.int64))

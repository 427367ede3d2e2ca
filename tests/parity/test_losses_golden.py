"""Our losses against those of castorini/rank_llm@1b3cabb (golden/losses.json, golden/train_batches.jsonl.gz).

Not compared, because ours differ on purpose: gradients of listnet and lambda under `reference`, where they flow
through the target (castorini/rank_llm@1b3cabb training/utils/train_utils.py, `compute_ranking_loss`). Where scores hold
-1, the reference's padding value in listnet, ours is given the same padding as a mask. Where the reference's loss is
NaN for want of a pair, ours is not counted.
"""

from __future__ import annotations

import gzip
import json

import pytest
from shared_files import golden

torch = pytest.importorskip("torch")

from rankllm_train.training.losses import (  # noqa: E402
    lambda_loss,
    lambda_per_list,
    listnet,
    listnet_per_list,
    mean_over_lists,
    own_scores_as_gold,
    ranknet,
    ranknet_per_list,
    ranks_as_gold,
    ranks_by_gold,
    sum_token_nll,
)

NAMES = ("ranknet_weighted", "ranknet", "listnet", "lambda")
VARIANTS = ("reference", "detached", "ranks")
DTYPES = ("float64", "float32")
PADDING_OF_LISTNET = -1.0
# The reference ranks by torch's CPU sort, which keeps the order of equal values in short lists only. These are its
# orders (torch 2.13) of the one longer list with ties: of the scores, and of the gold scores made from them. With the
# passages arranged so, "of equals the first" is the same choice.
ORDER_OF_SCORES = [3, 7, 10, 13, 2, 6, 9, 1, 12, 8, 4, 0, 11, 14, 15, 18, 19, 5, 16, 17]
ORDER_OF_GOLD = [17, 4, 0, 10, 19, 11, 3, 7, 8, 13, 15, 2, 6, 9, 12, 16, 1, 5, 14, 18]


@pytest.fixture(scope="module")
def recorded():
    """All of losses.json."""
    return json.loads(golden("losses.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def batches():
    """All rows of train_batches.jsonl.gz."""
    with gzip.open(golden("train_batches.jsonl.gz"), "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def arranged(case, name, dtype="float64"):
    """Scores and 1-based ranks of a case, and its passages' order in them."""
    order = list(range(case["m"]))
    if (case["name"], case["m"]) == ("ties", 20):
        order = {"lambda": ORDER_OF_SCORES, "ranknet_weighted": ORDER_OF_GOLD}.get(name, order)
    scores = torch.tensor([[case["scores"][i] for i in order]], dtype=getattr(torch, dtype), requires_grad=True)
    return scores, torch.tensor([[case["rank_label"][i] + 1 for i in order]]), order


def gradient(scores, order):
    """The gradient in the case's own order."""
    return [value for _, value in sorted(zip(order, scores.grad[0].tolist(), strict=True))]


def by_gold(name, scores, gold):
    """The loss of explicit gold scores, whatever they are made from."""
    if name == "listnet":
        return listnet_per_list(scores, gold, mask_BN=gold != PADDING_OF_LISTNET)
    if name == "lambda":
        return lambda_per_list(scores, gold)
    return ranknet_per_list(scores, gold, ranks_BN=ranks_by_gold(gold) if name == "ranknet_weighted" else None)


def gold_of(variant, scores, ranks):
    if variant == "ranks":
        return ranks_as_gold(ranks)
    return own_scores_as_gold(scores if variant == "reference" else scores.detach(), ranks)


def tolerance(name, dtype):
    return {"rel": 1e-9, "abs": 1e-9} if (name, dtype) == ("listnet", "float64") else {"rel": 3e-6, "abs": 1e-6}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_losses_of_gold_scores_are_the_reference_s(recorded, name, variant, dtype):
    """23 lists: values and gradients; the gradients through the target not for listnet and lambda."""
    n_compared = 0
    for case in recorded["cases"]:
        expected = case["results"][dtype][variant][name]
        scores, ranks, order = arranged(case, name, dtype)
        lists = by_gold(name, scores, gold_of(variant, scores, ranks))
        if expected["loss"] == "nan":
            assert not lists.is_counted_B.any(), case["name"]
            assert mean_over_lists(lists).item() == 0
            continue
        loss = mean_over_lists(lists)
        loss.backward()
        where = (case["name"], case["m"])
        assert loss.item() == pytest.approx(expected["loss"], **tolerance(name, dtype)), where
        if not (variant == "reference" and name in ("listnet", "lambda")):
            assert gradient(scores, order) == pytest.approx(expected["grad"], **tolerance(name, dtype)), where
        n_compared += 1
    assert n_compared == (23 if name == "listnet" or variant == "ranks" else 20)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NAMES[:2])
def test_ranknet_in_float64_is_exact(recorded, name, variant):
    """The reference itself drops to float32 here; the recorded formula does not. It has no row without pairs."""
    n_compared = 0
    for case in recorded["cases"]:
        expected = case["ranknet_float64_formula"].get(variant, {}).get(name)
        if expected is None:
            continue
        scores, ranks, order = arranged(case, name)
        loss = mean_over_lists(by_gold(name, scores, gold_of(variant, scores, ranks)))
        loss.backward()
        assert loss.item() == pytest.approx(expected["loss"], rel=1e-12)
        assert gradient(scores, order) == pytest.approx(expected["grad"], rel=1e-9, abs=1e-12)
        n_compared += 1
    assert n_compared == (23 if variant == "ranks" else 20)


@pytest.mark.parametrize(
    ("loss", "name", "variant"),
    [
        (lambda scores, ranks: ranknet(scores, ranks, discount=True), "ranknet_weighted", "ranks"),
        (lambda scores, ranks: ranknet(scores, ranks, discount=False), "ranknet", "ranks"),
        (listnet, "listnet", "detached"),
        (lambda_loss, "lambda", "ranks"),
    ],
    ids=NAMES,
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_losses_we_train_with_are_the_stated_variants(recorded, loss, name, variant, dtype):
    """RankNet and lambda from target ranks, ListNet from its own scores, detached; each list has a value then.

    ListNet reads a score of -1 as a score: lists that hold one are left out here.
    """
    for case in recorded["cases"]:
        if name == "listnet" and PADDING_OF_LISTNET in case["scores"]:
            continue
        expected = case["results"][dtype][variant][name]
        scores, ranks, order = arranged(case, name, dtype)
        value = loss(scores, ranks)
        value.backward()
        assert value.item() == pytest.approx(expected["loss"], **tolerance(name, dtype))
        assert gradient(scores, order) == pytest.approx(expected["grad"], **tolerance(name, dtype))


def test_token_loss_of_batches_is_the_reference_s(recorded):
    """Mean over the target tokens of a (3, 6, 24) batch, its labels shifted by one; gradients summed by row."""
    for batch in recorded["batches"]:
        logits = torch.tensor(batch["logits"], requires_grad=True)
        labels = torch.tensor(batch["labels"])
        total, number = sum_token_nll(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        (total / number).backward()
        assert (total / number).item() == pytest.approx(batch["generation_loss"], rel=3e-6)
        assert logits.grad.abs().sum().item() == pytest.approx(batch["generation_grad_abs_sum"], rel=3e-6)
        row_sums = logits.grad.abs().sum(dim=-1)
        assert torch.allclose(row_sums, torch.tensor(batch["generation_grad_row_sums"]), rtol=3e-6, atol=1e-6)


def padded(rows, filler):
    """Rows of different lengths as a tensor, and the mask."""
    width = max(map(len, rows))
    mask = torch.tensor([[position < len(row) for position in range(width)] for row in rows])
    return torch.tensor([list(row) + [filler] * (width - len(row)) for row in rows]), mask


def reference_loss(name, scores, ranks, mask):
    """The reference's ranking loss of a batch: own sorted scores as gold."""
    gold = own_scores_as_gold(scores, ranks, mask_BN=mask)
    if name == "listnet":
        return mean_over_lists(listnet_per_list(scores, gold, mask_BN=mask))
    if name == "lambda":
        return mean_over_lists(lambda_per_list(scores, gold, mask_BN=mask))
    weights = ranks_by_gold(gold, mask_BN=mask) if name == "ranknet_weighted" else None
    return mean_over_lists(ranknet_per_list(scores, gold, ranks_BN=weights, mask_BN=mask))


@pytest.mark.parametrize("name", NAMES)
def test_ranking_losses_of_batches_are_the_reference_s(recorded, name):
    """Lists of different lengths, read from the logits of one position each, as one masked batch."""
    for batch in recorded["batches"]:
        logits = torch.tensor(batch["logits"], requires_grad=True)
        ranks, mask = padded(batch["rank_labels"], -1)
        read = logits[torch.arange(logits.shape[0]), torch.tensor(batch["positions"])]
        loss = reference_loss(name, read[:, : ranks.shape[1]], ranks + 1, mask)
        assert loss.item() == pytest.approx(batch[name]["loss"], rel=3e-6)
        if name.startswith("ranknet"):
            loss.backward()
            at_positions = logits.grad[torch.arange(logits.shape[0]), torch.tensor(batch["positions"])]
            assert torch.allclose(at_positions, torch.tensor(batch[name]["grad_at_positions"]), rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("block", ["reference", "correct"])
@pytest.mark.parametrize("name", NAMES)
def test_combined_losses_of_real_batches_are_the_reference_s(batches, block, name):
    """From the recorded identifier logits of SmolLM2, read at the reference's position and at the right one."""
    for row in batches:
        recorded = row[block]
        scores, mask = padded(recorded["ranking_logits"], 0.0)
        ranks, _ = padded(row["rank_labels"], -1)
        rank_loss = reference_loss(name, scores, ranks + 1, mask).item()
        combined = recorded["generation_loss"] + recorded[name]["lambda_"] * rank_loss
        assert rank_loss == pytest.approx(recorded[name]["rank_loss"], rel=1e-4), row["id"]
        assert combined == pytest.approx(recorded[name]["combined_loss"], rel=1e-4), row["id"]

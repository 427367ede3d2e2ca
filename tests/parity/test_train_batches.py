"""Training on the real model gives the numbers of the reference (golden train_batches, rankllama_scores).

The block `correct` of train_batches: prompt lengths counted from the ids, in which the reference errs.
"""

from __future__ import annotations

import gzip
import json

import pytest

torch = pytest.importorskip("torch")

from shared_files import golden  # noqa: E402

from rankllm_train.data.records import parse_listwise  # noqa: E402
from rankllm_train.encoding.batches import ListwiseCollator  # noqa: E402
from rankllm_train.encoding.listwise import encode_listwise  # noqa: E402
from rankllm_train.encoding.listwise_encoder import ListwiseEncoder  # noqa: E402
from rankllm_train.models.loading import load_model  # noqa: E402
from rankllm_train.recipe.sections import LoraSection, ModelSection  # noqa: E402
from rankllm_train.training.losses import (  # noqa: E402
    lambda_per_list,
    listnet_per_list,
    own_scores_as_gold,
    ranknet_per_list,
    ranks_by_gold,
)
from rankllm_train.training.objectives import ListwiseObjective, PointwiseObjective  # noqa: E402


def rows_of(name):
    """The rows of a golden file."""
    with gzip.open(golden(name), "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


@pytest.fixture(scope="module")
def rows():
    return rows_of("train_batches.jsonl.gz")


@pytest.fixture(scope="module")
def model(smollm2_path):
    """SmolLM2 in float32 as the trainer loads it, without dropout (it has none)."""
    section = ModelSection(name_or_path=str(smollm2_path), precision="fp32")
    return load_model(section, kind="causal", lora=LoraSection(), seed=0).eval()


@pytest.fixture(scope="module")
def dataset(rows, smollm2_tokenizer):
    """The six records as ids."""
    records = [
        parse_listwise(r["record"], path="golden", line=i + 1) for i, r in enumerate(rows) if r["kind"] == "single"
    ]
    encoder = ListwiseEncoder(smollm2_tokenizer, objective="combined")
    return encode_listwise(records, encoder, objective="combined", context_tokens=4096)


def batch_of(row, dataset):
    collate = ListwiseCollator(objective="combined", identifier_ids=dataset.identifier_ids, pad_id=2)
    return collate([dataset[index] for index in row["record_indices"]])


def test_ids_labels_and_positions_are_the_references(rows, dataset):
    """Every batch: ids with padding, labels (ours are shifted by one), the position of `[`, the ranks."""
    assert len(rows) == 8
    for row in rows:
        batch, correct = batch_of(row, dataset), row["correct"]
        assert batch["input_ids"].tolist() == row["input_ids"]
        expected = torch.tensor(correct["labels"])
        assert batch["labels"][:, :-1].tolist() == expected[:, 1:].tolist()
        assert batch["read_positions"].tolist() == correct["rank_positions"]
        for ranks, label in zip(batch["ranks"].tolist(), row["rank_labels"], strict=True):
            assert [rank - 1 for rank in ranks[: len(label)]] == label


def sums_of(model, batch, **options):
    objective = ListwiseObjective(name="combined", **options)
    return objective, objective.sums(model, batch), objective.counts(batch)


@pytest.mark.slow
def test_losses_and_logits_are_the_references(rows, dataset, model):
    """All eight batches: generation loss, ranking logits, RankNet's combined loss, the losses of own sorted logits."""
    for row in rows:
        batch, correct = batch_of(row, dataset), row["correct"]
        with torch.inference_mode():
            out = model(**{name: batch[name] for name in ("input_ids", "labels", "read_positions", "read_ids")})
            stub = _Fixed(out)
            for variant, weighted in (("ranknet_weighted", True), ("ranknet", False)):
                weight = correct[variant]["lambda_"]
                objective, sums, counts = sums_of(stub, batch, ranking_loss="ranknet", weighted=weighted, weight=weight)
                parts = objective.parts(sums, counts)
                assert int(counts.tokens) == correct["n_target_tokens"]
                assert parts.token_loss.item() == pytest.approx(correct["generation_loss"], rel=1e-4)
                assert parts.list_loss.item() == pytest.approx(correct[variant]["rank_loss"], rel=1e-3)
                assert parts.total.item() == pytest.approx(correct[variant]["combined_loss"], rel=1e-4)
        for logits, expected in zip(out["read_logits"], correct["ranking_logits"], strict=True):
            torch.testing.assert_close(logits[: len(expected)], torch.tensor(expected), atol=1e-3, rtol=0)
        _check_own_gold(out["read_logits"], batch["ranks"], correct)


def _check_own_gold(scores_BN, ranks_BN, correct):
    """The reference's targets are the model's own sorted logits: fed to the same pure functions."""
    mask_BN = ranks_BN > 0
    gold_BN = own_scores_as_gold(scores_BN, ranks_BN, mask_BN=mask_BN)
    ranks = ranks_by_gold(gold_BN, mask_BN=mask_BN)
    losses = {
        "ranknet_weighted": ranknet_per_list(scores_BN, gold_BN, ranks_BN=ranks, mask_BN=mask_BN),
        "listnet": listnet_per_list(scores_BN, gold_BN, mask_BN=mask_BN),
        "lambda": lambda_per_list(scores_BN, gold_BN, mask_BN=mask_BN),
    }
    for name, lists in losses.items():
        expected = correct[name]["rank_loss"]
        # Logits agree to 1e-4, which the gains 2^30 of lambda magnify.
        assert lists.losses_B.mean().item() == pytest.approx(expected, rel=1e-3, abs=1e-5), name


class _Fixed:
    """A model that gives an answer computed before."""

    def __init__(self, out):
        self._out = out

    def __call__(self, **inputs):
        return self._out


@pytest.mark.slow
def test_gradients_of_the_combined_loss_are_the_references(rows, dataset, model):
    """L2 norms of five parameters and of all, on the two records of five passages (weighted RankNet)."""
    for row in (row for row in rows if "gradients_correct_combined" in row):
        expected = row["gradients_correct_combined"]["ranknet_weighted"]
        model.zero_grad()
        objective, sums, counts = sums_of(
            model, batch_of(row, dataset), ranking_loss="ranknet", weighted=True, weight=10
        )
        objective.parts(sums, counts).total.backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        for name, norm in expected["l2"].items():
            assert grads[name].norm().item() == pytest.approx(norm, rel=1e-3), name
        total = torch.stack([grad.norm() for grad in grads.values()]).norm().item()
        assert total == pytest.approx(expected["total_l2"], rel=1e-3)
        model.zero_grad(set_to_none=True)


@pytest.fixture(scope="module")
def scored():
    return rows_of("rankllama_scores.jsonl.gz")


@pytest.mark.slow
def test_group_losses_and_gradients_are_the_references(scored, smollm2_path):
    """RankLLaMA's scores and loss for eight groups, its loss for two of them in a batch, its gradient norms."""
    section = ModelSection(name_or_path=str(smollm2_path), precision="fp32")
    model = load_model(section, kind="sequence-classification", lora=LoraSection(), seed=0).eval()
    with torch.no_grad():
        model.score.weight.copy_(torch.tensor([scored[0]["weight"]]))
    groups = {row["id"]: row for row in scored if row["kind"] == "group"}
    objective = PointwiseObjective(name="cross-entropy", group_size=8)
    with torch.inference_mode():
        for group in groups.values():
            batch = padded_batch(group["v1"]["input_ids"])
            out = model(input_ids=batch["input_ids"], read_positions=batch["read_positions"])
            expected = torch.tensor(group["v1"]["scores_single_unpadded"])
            torch.testing.assert_close(out["scores"], expected, atol=1e-4, rtol=0)
            # The forward pass takes seconds and is not made twice.
            sums = objective.sums(lambda out=out, **_: out, batch)
            loss = objective.parts(sums, objective.counts(batch)).total
            assert loss.item() == pytest.approx(group["v1"]["group_loss"], abs=1e-4)
        doubles = [row for row in scored if row["kind"] == "two groups in one batch"]
        assert (len(groups), len(doubles)) == (8, 3)
        for double in doubles[:1]:  # each takes as long as two of the groups above, and says the same
            batch = padded_batch([ids for name in double["groups"] for ids in groups[name]["v1"]["input_ids"]])
            counts = objective.counts(batch)
            assert int(counts.lists) == 2
            loss = objective.parts(objective.sums(model, batch), counts).total
            assert loss.item() == pytest.approx(double["loss"], abs=1e-4)
    first = next(group for group in groups.values() if group["gradients_v1_group_loss"])
    batch = padded_batch(first["v1"]["input_ids"])
    objective.parts(objective.sums(model, batch), objective.counts(batch)).total.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for name, norm in first["gradients_v1_group_loss"]["l2"].items():
        assert grads[name].norm().item() == pytest.approx(norm, rel=1e-3), name


def padded_batch(rows):
    from rankllm_train.encoding.batches import padded

    lengths = torch.tensor([len(row) for row in rows])
    return {"input_ids": padded(rows, pad=2), "lengths": lengths, "read_positions": lengths - 1}


@pytest.mark.parametrize("limits", ["32,164", "32,196", "16,64"])
def test_groups_are_trained_on_the_recorded_ids(limits, llama2_tokenizer):
    """Each recorded pair as the positive of a group of two, in RankLLaMA's published layout."""
    from rankllm_core.prompts.pairs import PairEncoder, PairLimits
    from rankllm_core.prompts.template import load_template
    from rankllm_train.data.records import parse_pointwise
    from rankllm_train.encoding.pointwise import GroupRule, pointwise_dataset

    rows = [row for row in rows_of("rankllama_ids.jsonl.gz") if row["kind"] == "pair"]
    # The one left out holds `<s>` as text, which the original reads as a control token.
    pairs = [row for row in rows if row["v1"][limits]["train_same"] and not row["tokenizer_version_sensitive"]]
    assert len(pairs) >= 40
    query_tokens, passage_tokens = map(int, limits.split(","))
    encoder = PairEncoder(
        llama2_tokenizer,
        load_template("rankllama"),
        limits=PairLimits(query_tokens=query_tokens, passage_tokens=passage_tokens),
    )
    records = [
        parse_pointwise(
            {
                "query_id": row["id"],
                "query": row["query"],
                "positive_passages": [{"docid": "positive", "title": row["title"], "text": row["text"]}],
                "negative_passages": [{"docid": "other", "text": "another passage"}],
            },
            path="golden",
            line=number,
        )
        for number, row in enumerate(pairs, start=1)
    ]
    dataset = pointwise_dataset(records, encoder, GroupRule(group_size=2))
    for index, row in enumerate(pairs):
        assert list(dataset[index].rows[0]) == row["v1"][limits]["ids"], row["id"]

"""The lean forward pass equals the model's own, minus the logits that no loss reads."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402
from training_fakes import listwise_record, save_tiny  # noqa: E402

from rankllm_train.data.records import parse_listwise  # noqa: E402
from rankllm_train.encoding.batches import ListwiseCollator  # noqa: E402
from rankllm_train.encoding.listwise import encode_listwise  # noqa: E402
from rankllm_train.encoding.listwise_encoder import ListwiseEncoder  # noqa: E402
from rankllm_train.models.loading import load_model  # noqa: E402
from rankllm_train.recipe.sections import LoraSection, ModelSection  # noqa: E402
from rankllm_train.training.objectives import ListwiseObjective  # noqa: E402

OBJECTIVES = ("generation", "ranking", "combined")
WEIGHT = 10.0


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, smollm2_tokenizer):
    return save_tiny(tmp_path_factory.mktemp("tiny"), smollm2_tokenizer)


@pytest.fixture(scope="module")
def untied(tmp_path_factory, smollm2_tokenizer):
    """A tiny model with an untied output layer, since a tied one cannot have an adapter."""
    return save_tiny(tmp_path_factory.mktemp("untied"), smollm2_tokenizer, tied=False)


def load(tiny, **lora):
    section = ModelSection(name_or_path=tiny, precision="fp32")
    return load_model(section, kind="causal", lora=LoraSection(enabled=bool(lora), dropout=0.0, **lora), seed=1)


def examples_and_batch(tokenizer, objective):
    """Return three records of different lengths and their batch, padded to the longest."""
    records = [parse_listwise(listwise_record(i), path="d", line=i + 1) for i in range(3)]
    data = encode_listwise(
        records, ListwiseEncoder(tokenizer, objective=objective), objective=objective, context_tokens=1024
    )
    collate = ListwiseCollator(objective=objective, identifier_ids=data.identifier_ids, pad_id=2)
    return data.examples, collate([data[i] for i in range(3)])


def lean_loss(model, batch, objective):
    whole = ListwiseObjective(name=objective, weighted=True, weight=WEIGHT)
    return whole.parts(whole.sums(model, batch), whole.counts(batch)).total


def dense_loss(model, batch, examples, objective):
    """Compute the loss from all logits of the model's own forward pass, with its own cross-entropy, and weighted
    RankNet from full rows.
    """
    ids = batch["input_ids"]
    labels = torch.full_like(ids, -100)
    for b, example in enumerate(examples):
        labels[b, example.n_prompt : len(example)] = ids[b, example.n_prompt : len(example)]
    innermost = model.get_base_model() if hasattr(model, "get_base_model") else model
    out = type(innermost).forward(innermost, input_ids=ids, labels=labels, use_cache=False)
    if objective == "generation":
        return out.loss
    per_list = []
    for b, example in enumerate(examples):
        scores, ranks = out.logits[b, example.n_prompt][batch["read_ids"][b]], example.ranks
        pairs = [(i, j) for i in range(3) for j in range(3) if ranks[i] < ranks[j]]
        losses = [torch.log1p(torch.exp(scores[j] - scores[i])) / (ranks[i] + ranks[j]) for i, j in pairs]
        per_list.append(sum(losses) / len(pairs))
    list_loss = sum(per_list) / len(per_list)
    return list_loss if objective == "ranking" else out.loss + WEIGHT * list_loss


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("objective", "lora", "checkpointing"),
    [
        ("generation", {}, False),
        ("ranking", {}, False),
        ("combined", {}, False),
        ("combined", {}, True),
        ("combined", {"r": 4}, True),
        ("ranking", {"r": 4}, False),
        ("ranking", {"r": 4, "target_modules": ("lm_head",)}, False),
    ],
)
def test_lean_and_dense_give_one_loss_and_one_gradient(tiny, untied, smollm2_tokenizer, objective, lora, checkpointing):
    """They agree within 1e-5 in float32, with and without adapters and gradient checkpointing."""
    model = load(untied if lora.get("target_modules") else tiny, **lora).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    examples, batch = examples_and_batch(smollm2_tokenizer, objective)
    lean = lean_loss(model, batch, objective)
    lean_gradients = gradients(model, lean)
    dense = dense_loss(model, batch, examples, objective)
    dense_gradients = gradients(model, dense)
    assert lean.item() == pytest.approx(dense.item(), abs=1e-5)
    assert lean_gradients.keys() == dense_gradients.keys() != set()
    assert any(bool(grad.any()) for grad in dense_gradients.values())
    for name, grad in dense_gradients.items():
        torch.testing.assert_close(lean_gradients[name], grad, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


class RowsOfLogits(TorchDispatchMode):
    """Count the rows of every tensor with one column per vocabulary token."""

    def __init__(self, n_vocabulary):
        super().__init__()
        self._n_vocabulary = n_vocabulary
        self.rows = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, torch.Tensor) and value.dim() and value.shape[-1] == self._n_vocabulary:
                self.rows.add(math.prod(value.shape[:-1]))
        return out


def rows_of_logits(model, batch, objective):
    """Return the row counts of all (rows, vocabulary) tensors in the forward and backward pass, except transposed
    weights.
    """
    with RowsOfLogits(model.config.vocab_size) as seen:
        lean_loss(model, batch, objective).backward()
    return seen.rows - {model.config.hidden_size}


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_generation_computes_logits_at_target_tokens_only(tiny, smollm2_tokenizer, recompute):
    """One row per answer token, including EOS; no operation of either pass produces more."""
    model = load(tiny).train()
    if recompute:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    for objective in ("generation", "combined"):
        examples, batch = examples_and_batch(smollm2_tokenizer, objective)
        n_targets = sum(len(example) - example.n_prompt for example in examples)
        # [B] > [A] > [C] and EOS: far fewer than the prompt's tokens.
        assert n_targets < batch["input_ids"].numel() / 10
        assert rows_of_logits(model, batch, objective) == {n_targets}


def test_ranking_computes_no_row_of_logits(tiny, smollm2_tokenizer):
    """Only the logits of the identifiers are computed, at one position per record; the output layer is never called."""
    model = load(tiny).train()
    _, batch = examples_and_batch(smollm2_tokenizer, "ranking")
    called = []
    model.lm_head.register_forward_hook(lambda *call: called.append(call[-1].shape))
    assert rows_of_logits(model, batch, "ranking") == set()
    assert called == []
    with torch.no_grad():
        out = model(**{name: batch[name] for name in ("input_ids", "read_positions", "read_ids")})
    assert {name: tuple(value.shape) for name, value in out.items()} == {"read_logits": (3, 3)}


def test_ranking_with_an_adapted_head_computes_one_row_a_record(untied, smollm2_tokenizer):
    """With an adapter, single rows cannot be read, so the output layer is called at one position per record."""
    model = load(untied, r=4, target_modules=("lm_head",))
    _, batch = examples_and_batch(smollm2_tokenizer, "ranking")
    adapter_rank = 4  # rows of the adapter's second matrix, turned
    assert rows_of_logits(model, batch, "ranking") - {adapter_rank} == {3}


def test_noise_on_the_embeddings_reaches_the_lean_forward(tiny, smollm2_tokenizer):
    """NEFTune hooks the embedding layer, which the lean forward calls: the loss changes in training mode, not in eval
    mode.
    """
    from transformers.integrations.neftune import neftune_post_forward_hook

    model = load(tiny, r=4)
    _, batch = examples_and_batch(smollm2_tokenizer, "combined")
    clean = lean_loss(model.eval(), batch, "combined").item()
    embeddings = model.get_input_embeddings()
    embeddings.neftune_noise_alpha = 5
    embeddings.register_forward_hook(neftune_post_forward_hook)
    assert lean_loss(model.eval(), batch, "combined").item() == clean
    assert lean_loss(model.train(), batch, "combined").item() != clean


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_padding_changes_nothing(tiny, smollm2_tokenizer, objective):
    """Tokens after a record's last token do not affect the loss, whatever the padding token is."""
    model = load(tiny).eval()
    _, batch = examples_and_batch(smollm2_tokenizer, objective)
    filled = batch["input_ids"].clone()
    for b, length in enumerate(batch["lengths"].tolist()):
        filled[b, length:] = 17
    assert (filled != batch["input_ids"]).any()
    other = lean_loss(model, {**batch, "input_ids": filled}, objective)
    torch.testing.assert_close(other, lean_loss(model, batch, objective), atol=1e-6, rtol=0)

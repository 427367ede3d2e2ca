"""The loss of a step does not depend on the micro-batch size; unsupported models are rejected."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from training_fakes import listwise_record, pointwise_record, save_tiny, write_records  # noqa: E402

from rankllm_core.errors import ContractError  # noqa: E402
from rankllm_core.prompts.pairs import PairEncoder, PairLimits  # noqa: E402
from rankllm_core.prompts.template import load_template  # noqa: E402
from rankllm_train.data.records import parse_listwise, parse_pointwise  # noqa: E402
from rankllm_train.encoding.batches import ListwiseCollator, PointwiseCollator  # noqa: E402
from rankllm_train.encoding.listwise import encode_listwise  # noqa: E402
from rankllm_train.encoding.listwise_encoder import ListwiseEncoder  # noqa: E402
from rankllm_train.encoding.pointwise import GroupRule, pointwise_dataset  # noqa: E402
from rankllm_train.models.lean_forward import check_lean, make_lean  # noqa: E402
from rankllm_train.models.loading import load_model  # noqa: E402
from rankllm_train.recipe.sections import LoraSection, ModelSection  # noqa: E402
from rankllm_train.training.objectives import ListwiseObjective, PointwiseObjective, StepCounts  # noqa: E402


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, smollm2_tokenizer):
    return save_tiny(tmp_path_factory.mktemp("tiny"), smollm2_tokenizer)


def fresh(tiny, kind="causal", **lora):
    section = ModelSection(name_or_path=tiny, precision="fp32")
    return load_model(section, kind=kind, lora=LoraSection(enabled=bool(lora), **lora), seed=1)


def lists(tokenizer, objective, numbers, **options):
    records = [parse_listwise(listwise_record(i, **options), path="d", line=i + 1) for i in numbers]
    encoder = ListwiseEncoder(tokenizer, objective=objective)
    data = encode_listwise(records, encoder, objective=objective, context_tokens=1024)
    collate = ListwiseCollator(objective=objective, identifier_ids=data.identifier_ids, pad_id=2)
    return data, collate


def groups(tokenizer, n, *, teacher=False, answers=()):
    template = load_template("yes_no" if answers else "rankllama")
    encoder = PairEncoder(tokenizer, template, limits=PairLimits(query_tokens=16, passage_tokens=32))
    records = [parse_pointwise(pointwise_record(i, teacher=teacher), path="p", line=i + 1) for i in range(n)]
    data = pointwise_dataset(records, encoder, GroupRule(group_size=4, needs_teacher=teacher))
    return data, PointwiseCollator(pad_id=2, answer_ids=tuple(answers))


def step_loss(objective, model, batches):
    """The loss of one optimizer step over several micro-batches, summed as the trainer does."""
    counts = [objective.counts(batch) for batch in batches]
    total = StepCounts(sum(c.tokens for c in counts), sum(c.lists for c in counts))
    return sum(objective.parts(objective.sums(model, batch), total).total for batch in batches)


@pytest.mark.parametrize("name", ["generation", "ranking", "combined"])
def test_four_micro_batches_of_one_are_one_of_four(tiny, smollm2_tokenizer, name):
    """Loss and gradients agree within 1e-5 for records of different lengths, so a record's weight does not depend on
    its batch.
    """
    data, _ = lists(smollm2_tokenizer, name, [0, 1, 2])
    other, _ = lists(smollm2_tokenizer, name, [3], n=5)
    items = [data[0], data[1], data[2], other[0]]
    wide = ListwiseCollator(
        objective=name, identifier_ids=tuple(smollm2_tokenizer.convert_tokens_to_ids(list("ABCDE"))), pad_id=2
    )
    objective = ListwiseObjective(name=name, weighted=True, weight=10.0)
    found = []
    for batches in ([wide(items)], [wide([item]) for item in items]):
        model = fresh(tiny)
        loss = step_loss(objective, model, batches)
        loss.backward()
        found.append((loss.item(), {n: p.grad for n, p in model.named_parameters()}))
    (whole, grads), (split, grads_split) = found
    assert split == pytest.approx(whole, rel=1e-5)
    for parameter, grad in grads.items():
        torch.testing.assert_close(grads_split[parameter], grad, atol=1e-5, rtol=1e-4)


def test_the_combined_loss_is_token_mean_plus_weighted_list_mean(tiny, smollm2_tokenizer):
    """Compared with dense logits: cross-entropy over all answer tokens, and RankNet as a double loop at the bracket
    position.
    """
    data, collate = lists(smollm2_tokenizer, "combined", [0, 2])
    batch, model = collate([data[0], data[1]]), fresh(tiny).eval()
    logits = type(model).forward(model, input_ids=batch["input_ids"]).logits.double()
    nll, n_tokens, rank = 0.0, 0, 0.0
    for b, example in enumerate(data.examples):
        for t in range(example.n_prompt, len(example)):
            nll -= logits[b, t - 1].log_softmax(0)[example.token_ids[t]].item()
            n_tokens += 1
        scores = logits[b, example.n_prompt][batch["read_ids"][b]].tolist()
        pairs = [(i, j) for i in range(3) for j in range(3) if example.ranks[i] < example.ranks[j]]
        losses = [
            torch.nn.functional.softplus(torch.tensor(scores[j] - scores[i])).item()
            / (example.ranks[i] + example.ranks[j])
            for i, j in pairs
        ]
        rank += sum(losses) / len(pairs)
    loss = step_loss(ListwiseObjective(name="combined", weighted=True, weight=10.0), model, [batch])
    assert loss.item() == pytest.approx(nll / n_tokens + 10 * rank / 2, rel=1e-5)


def test_groups_of_two_steps_weigh_alike(tiny, smollm2_tokenizer):
    """With micro-batches of two groups and one group, each group has a weight of one third."""
    data, collate = groups(smollm2_tokenizer, 3)
    objective = PointwiseObjective(name="cross-entropy", group_size=4)
    model = fresh(tiny, "sequence-classification").eval()
    whole = step_loss(objective, model, [collate([data[0], data[1], data[2]])])
    split = step_loss(objective, model, [collate([data[0], data[1]]), collate([data[2]])])
    assert split.item() == pytest.approx(whole.item(), rel=1e-6)


def test_binary_cross_entropy_weighs_pairs_alike(tiny, smollm2_tokenizer):
    """The loss of a step is the mean over all its pairs for any micro-batch size; no teacher is needed."""
    data, collate = groups(smollm2_tokenizer, 3)
    objective = PointwiseObjective(name="binary-cross-entropy", group_size=4)
    model = fresh(tiny, "sequence-classification").eval()
    batches = [collate([data[0], data[1]]), collate([data[2]])]
    scores = [model(input_ids=b["input_ids"], read_positions=b["read_positions"])["scores"] for b in batches]
    labels = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(3)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(torch.cat(scores), labels)
    assert step_loss(objective, model, batches).item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_label_has_its_say_beside_a_teacher(tiny, smollm2_tokenizer):
    """KL + 0.3 x cross-entropy with the first passage of each group as the label."""
    data, collate = groups(smollm2_tokenizer, 2, teacher=True)
    batch = collate([data[0], data[1]])
    model = fresh(tiny, "sequence-classification").eval()
    options = {"group_size": 4, "teacher_temperature": 2.0}
    loss = {
        (name, weight): step_loss(PointwiseObjective(name=name, label_weight=weight, **options), model, [batch]).item()
        for name, weight in (("kl", 0.0), ("kl", 0.3), ("margin", 0.0), ("margin", 0.3), ("cross-entropy", 0.0))
    }
    for name in ("kl", "margin"):
        expected = loss[name, 0.0] + 0.3 * loss["cross-entropy", 0.0]
        assert loss[name, 0.3] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["kl", "margin"])
def test_a_recipes_objective_is_the_one_that_is_used(tiny, smollm2_tokenizer, tmp_path, name):
    """Every value of the section takes effect."""
    from rankllm_train.methods.registry import prepare
    from rankllm_train.recipe.recipe import Recipe

    write_records(tmp_path / "data.jsonl", [pointwise_record(i, teacher=True) for i in range(2)])
    values = {"name": name, "label_weight": 0.3, "teacher_temperature": 0.5, "student_temperature": 2.0}
    changes = {f"objective.{key}": value for key, value in values.items()}
    changes |= {"model.name_or_path": tiny, "data.train": str(tmp_path / "data.jsonl"), "data.group_size": 4}
    objective = prepare(Recipe(method="pointwise").changed(changes), smollm2_tokenizer).objective
    assert objective == PointwiseObjective(group_size=4, **values)


def test_a_model_that_changes_its_logits_is_refused(smollm2_tokenizer):
    """Gemma 2 caps its logits after the output layer; reading that layer alone would train a different model."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        final_logit_softcapping=0.5,
        initializer_range=1.0,
    )
    model = Gemma2ForCausalLM(config)
    make_lean(model)
    with pytest.raises(ContractError, match="transforms its logits after the head"):
        check_lean(model)


def test_an_adapter_cannot_be_trained_on(tiny, tmp_path):
    """It has to be merged into its base first."""
    from rankllm_core.errors import ConfigError

    fresh(tiny, r=4).save_pretrained(tmp_path / "adapter")
    with pytest.raises(
        ConfigError,
        match="is an adapter; give its base model here and the adapter with --start-from-adapter, or merge it",
    ):
        load_model(ModelSection(name_or_path=str(tmp_path / "adapter")), kind="causal", lora=LoraSection(), seed=0)


def test_layers_that_are_not_there_are_named(tiny):
    """A misspelled target module is reported by name."""
    from rankllm_core.errors import ConfigError

    with pytest.raises(ConfigError, match=r"lora\.target_modules: .*query_proj"):
        fresh(tiny, r=4, target_modules=("query_proj",))

"""Under each objective a model memorizes one batch: the loss reaches its minimum, and the scores the target order. The
minimum is zero except for ListNet: its target is built from the model's own scores in the target order, so a list
in that order has reached the minimum whatever its scores, and the loss there is the entropy of their softmax.
"""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from training_fakes import listwise_record, pointwise_record, save_tiny  # noqa: E402

from rankllm_core.prompts.pairs import PairEncoder, PairLimits  # noqa: E402
from rankllm_core.prompts.template import load_template  # noqa: E402
from rankllm_train.data.records import parse_listwise, parse_pointwise  # noqa: E402
from rankllm_train.encoding.batches import ListwiseCollator, PointwiseCollator  # noqa: E402
from rankllm_train.encoding.listwise import encode_listwise  # noqa: E402
from rankllm_train.encoding.listwise_encoder import ListwiseEncoder  # noqa: E402
from rankllm_train.encoding.pointwise import GroupRule, pointwise_dataset  # noqa: E402
from rankllm_train.models.loading import load_model  # noqa: E402
from rankllm_train.recipe.sections import LoraSection, ModelSection  # noqa: E402
from rankllm_train.training.objectives import ListwiseObjective, PointwiseObjective  # noqa: E402

RANKING_LOSSES = [("ranknet", False), ("ranknet", True), ("listnet", False), ("lambda", False)]
IDS = ["ranknet", "weighted-ranknet", "listnet", "lambda"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, smollm2_tokenizer):
    return save_tiny(tmp_path_factory.mktemp("tiny"), smollm2_tokenizer)


def fresh(tiny, kind="causal", **lora):
    section = ModelSection(name_or_path=tiny, precision="fp32")
    return load_model(section, kind=kind, lora=LoraSection(enabled=bool(lora), **lora), seed=1)


def listwise_batch(tokenizer, objective, *, n):
    """Two records of n passages each."""
    records = [parse_listwise(listwise_record(i, n=n), path="d", line=i + 1) for i in range(2)]
    encoder = ListwiseEncoder(tokenizer, objective=objective)
    data = encode_listwise(records, encoder, objective=objective, context_tokens=1024)
    collate = ListwiseCollator(objective=objective, identifier_ids=data.identifier_ids, pad_id=2)
    return collate([data[0], data[1]])


def pointwise_batch(tokenizer, *, teacher=False, answers=()):
    """Two groups of four passages each."""
    template = load_template("yes_no" if answers else "rankllama")
    encoder = PairEncoder(tokenizer, template, limits=PairLimits(query_tokens=16, passage_tokens=32))
    records = [parse_pointwise(pointwise_record(i, teacher=teacher), path="p", line=i + 1) for i in range(2)]
    data = pointwise_dataset(records, encoder, GroupRule(group_size=4, needs_teacher=teacher))
    return PointwiseCollator(pad_id=2, answer_ids=tuple(answers))([data[0], data[1]])


def fit(objective, model, batch, *, steps, rate):
    """Train on one batch and return the parts of the loss at the first and the last step."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    counts, found = objective.counts(batch), []
    for _ in range(steps):
        optimizer.zero_grad()
        parts = objective.parts(objective.sums(model, batch), counts)
        parts.total.backward()
        optimizer.step()
        found.append(type(parts)(*(part.item() for part in parts)))
    return found[0], found[-1]


def learnt(model, batch):
    """Return the scores of the identifiers, and the target ranks sorted by these scores."""
    with torch.no_grad():
        scores = model(**{k: batch[k] for k in ("input_ids", "read_positions", "read_ids")})["read_logits"]
    return scores, batch["ranks"].gather(1, scores.argsort(dim=1, descending=True)).tolist()


def least(loss, scores):
    """The minimum of a ranking loss, as a mean over lists."""
    return torch.distributions.Categorical(logits=scores).entropy().mean().item() if loss == "listnet" else 0.0


def answers_are_most_likely(model, batch):
    """Return whether greedy decoding reproduces every label."""
    wanted = batch["labels"][batch["labels"] != -100]
    with torch.no_grad():
        found = model(input_ids=batch["input_ids"], labels=batch["labels"])["token_logits"].argmax(dim=1)
    return found.tolist() == wanted.tolist()


def test_rankings_are_learnt_by_heart_as_text(tiny, smollm2_tokenizer):
    """Generation: the token loss is near zero, and every label is the most likely token."""
    model, batch = fresh(tiny), listwise_batch(smollm2_tokenizer, "generation", n=3)
    first, last = fit(ListwiseObjective(name="generation"), model, batch, steps=100, rate=5e-3)
    assert first.total > 5
    assert last.total < 0.05
    assert answers_are_most_likely(model, batch)


@pytest.mark.parametrize(("loss", "weighted"), RANKING_LOSSES, ids=IDS)
def test_orders_are_learnt_by_heart_as_scores(tiny, smollm2_tokenizer, loss, weighted):
    """Ranking: four passages end up in the target order in both lists."""
    model, batch = fresh(tiny), listwise_batch(smollm2_tokenizer, "ranking", n=4)
    objective = ListwiseObjective(name="ranking", ranking_loss=loss, weighted=weighted)
    # ListNet is gentle: passages that a hasty step makes all but certain to be low do not sort themselves any more.
    steps, rate = (40, 1e-3) if loss == "listnet" else (50, 1e-2)
    _, last = fit(objective, model, batch, steps=steps, rate=rate)
    scores, order = learnt(model, batch)
    assert order == [[1, 2, 3, 4], [1, 2, 3, 4]]
    assert last.total == pytest.approx(least(loss, scores), abs=0.05)


@pytest.mark.parametrize(("loss", "weighted"), RANKING_LOSSES, ids=IDS)
def test_both_are_learnt_by_heart_at_once(tiny, smollm2_tokenizer, loss, weighted):
    """Combined, with the original weights: the text by its tokens, the order by the logits at the bracket."""
    weight = {"ranknet": 10.0 if weighted else 1.0, "listnet": 0.1, "lambda": 1.0}[loss]
    model, batch = fresh(tiny), listwise_batch(smollm2_tokenizer, "combined", n=3)
    objective = ListwiseObjective(name="combined", ranking_loss=loss, weighted=weighted, weight=weight)
    _, last = fit(objective, model, batch, steps=100, rate=5e-3)
    scores, order = learnt(model, batch)
    assert last.token_loss < 0.05
    assert last.list_loss == pytest.approx(least(loss, scores), abs=0.05)
    assert answers_are_most_likely(model, batch)
    # The first token of the answer makes the first passage the first; ListNet at 0.1 leaves the rest to chance.
    assert order == [[1, 2, 3], [1, 2, 3]] or (loss == "listnet" and [row[0] for row in order] == [1, 1])


@pytest.mark.parametrize("name", ["cross-entropy", "margin", "kl"])
@pytest.mark.parametrize("lora", [{}, {"r": 8, "alpha": 32, "dropout": 0.0}], ids=["full", "lora"])
def test_groups_are_learnt_by_heart(tiny, smollm2_tokenizer, name, lora):
    """The loss is near zero and the positive ranks first; with a teacher, score differences match the teacher's."""
    batch = pointwise_batch(smollm2_tokenizer, teacher=name != "cross-entropy")
    model = fresh(tiny, "sequence-classification", **lora)
    objective = PointwiseObjective(name=name, group_size=4)
    first, last = fit(objective, model, batch, steps=300 if lora else 150, rate=3e-3 if lora else 1e-2)
    assert last.total < 0.02 * max(first.total, 1.0)
    with torch.no_grad():
        scores = model(input_ids=batch["input_ids"], read_positions=batch["read_positions"])["scores"].view(2, 4)
    assert scores.argmax(dim=1).tolist() == [0, 0]
    if name == "margin":
        teacher = batch["teacher_scores"]
        torch.testing.assert_close(scores[:, :1] - scores, teacher[:, :1] - teacher, atol=0.6, rtol=0)
    elif name == "kl":
        torch.testing.assert_close(scores.softmax(1), batch["teacher_scores"].softmax(1), atol=0.03, rtol=0)


def test_a_yes_no_head_is_learnt_by_heart(tiny, smollm2_tokenizer):
    """There is no new layer: the score is the difference of two of the model's own logits."""
    answers = [smollm2_tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no")]
    model, batch = fresh(tiny), pointwise_batch(smollm2_tokenizer, answers=answers)
    _, last = fit(PointwiseObjective(name="cross-entropy", group_size=4), model, batch, steps=60, rate=1e-2)
    assert last.total < 0.05
    with torch.no_grad():
        yes, no = model(**{k: batch[k] for k in ("input_ids", "read_positions", "read_ids")})["read_logits"].unbind(1)
    assert (yes - no).view(2, 4).argmax(dim=1).tolist() == [0, 0]

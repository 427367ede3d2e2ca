"""What a model is trained on is what it is served: the same ids, the same logits, by way of the checkpoint's card."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch")

from training_fakes import listwise_record, pointwise_record, save_tiny, write_records  # noqa: E402
from transformers import TrainerCallback  # noqa: E402

from rankllm_core.card import ListwiseCard, PointwiseCard, load_card  # noqa: E402
from rankllm_core.prompts.template import load_template  # noqa: E402
from rankllm_core.prompts.tokens import SafeTokenizer  # noqa: E402
from rankllm_core.types import Candidate, Query, Request  # noqa: E402
from rankllm_infer.api import load_reranker  # noqa: E402
from rankllm_infer.engines.base import IdentifierIds  # noqa: E402
from rankllm_infer.options import RerankOptions  # noqa: E402
from rankllm_infer.plan import make_method  # noqa: E402
from rankllm_infer.ranking.settings import RankingSettings  # noqa: E402
from rankllm_train.api import train  # noqa: E402
from rankllm_train.encoding.pointwise import PointwiseItem  # noqa: E402
from rankllm_train.methods.registry import prepare  # noqa: E402
from rankllm_train.recipe.recipe import Recipe  # noqa: E402

SHOWN = re.compile(r"^\[\w+\] (.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, smollm2_tokenizer):
    return save_tiny(tmp_path_factory.mktemp("tiny"), smollm2_tokenizer)


def recipe_for(tiny, path, out, **changes):
    base = {
        "model.name_or_path": tiny,
        "model.precision": "fp32",
        "data.train": path,
        "checkpoint.output_dir": str(out),
        "checkpoint.every": "none",
        "schedule.max_steps": 2,
        "optim.learning_rate": 1e-3,
        "prompt.context_tokens": 1024,
    }
    return Recipe(method=changes.pop("method", "listwise")).changed(base | changes)


def request_of(record):
    """The request whose only window is the record's prompt."""
    human = record["conversations"][-2]["value"]
    passages = SHOWN.findall(human)
    query = re.search(r"search query: (.*)\.$", human, re.MULTILINE)[1]
    candidates = tuple(Candidate(docid=str(i), score=float(-i), doc={"text": text}) for i, text in enumerate(passages))
    return Request(query=Query(qid="1", text=query), candidates=candidates)


LOOKALIKES = "&#91;2&#93; [ 2 ] \uff3b\uff12\uff3d \u2461 [\u200b2] [B] \uff3b\uff22\uff3d [rankstart] <answer>"
NASTY = "it says <|im_end|> and <|im_start|>system, caf\u00e9 &amp; \u201cquotes\u201d, 50% {x} \\n"


@pytest.mark.parametrize(
    ("objective", "kind"), [("generation", "numeric"), ("ranking", "alpha"), ("combined", "alpha")]
)
def test_listwise_ids_in_training_are_those_at_inference(tiny, smollm2_tokenizer, tmp_path, objective, kind):
    """For ordinary passages and for ones with control tokens, entities, braces and look-alikes in them."""
    from rankllm_core.text import fix_text

    records = [listwise_record(i, kind=kind) for i in range(3)]
    human = records[1]["conversations"][1]
    human["value"] = re.sub(r"^(\[(?:1|A)\]) .*$", lambda m: f"{m[1]} {fix_text(NASTY)}", human["value"], flags=re.M)
    human = records[2]["conversations"][1]
    human["value"] = re.sub(r"^(\[(?:1|A)\]) .*$", lambda m: f"{m[1]} {LOOKALIKES}", human["value"], flags=re.M)
    human["value"] = (
        human["value"].replace("earch query: ", "earch query: [2] ").replace("earch Query: ", "earch Query: [2] ")
    )
    path = write_records(tmp_path / "d.jsonl", records)
    data = prepare(recipe_for(tiny, path, tmp_path / "o", **{"objective.name": objective}), smollm2_tokenizer)
    assert isinstance(data.card, ListwiseCard)
    assert data.card.template == load_template("rank_zephyr" if kind == "numeric" else "rank_zephyr_alpha")
    method = make_method(data.card, RankingSettings(), smollm2_tokenizer)
    for record, example in zip(records, data.dataset.examples, strict=True):
        (prompt,) = next(method.flow(request_of(record)))
        n = example.n_prompt + (1 if data.card.answer == "first-token" else 0)
        assert prompt.token_ids == tuple(example.token_ids[:n])


@pytest.mark.parametrize("template", ["rankllama", "rankllama-v2", "yes_no", "yes_no_query_last", "yes_no_short"])
def test_pointwise_ids_in_training_are_those_at_inference(tiny, smollm2_tokenizer, tmp_path, template):
    """All pairs of a group."""
    path = write_records(tmp_path / "p.jsonl", [pointwise_record(i) for i in range(2)])
    head = "yes-no" if template.startswith("yes_no") else "sequence-classification"
    changes = {"method": "pointwise", "data.group_size": 4, "prompt.template": template, "prompt.head": head}
    data = prepare(recipe_for(tiny, path, tmp_path / "o", **changes), smollm2_tokenizer)
    assert isinstance(data.card, PointwiseCard)
    method = make_method(data.card, RankingSettings(), smollm2_tokenizer)
    for index, record in enumerate(data.dataset.records):
        passages = [*record.positives, *record.negatives]
        candidates = tuple(
            Candidate(docid=p.docid, score=0.0, doc={"title": p.title, "text": p.text}) for p in passages
        )
        request = Request(query=Query(qid=record.qid, text=record.query), candidates=candidates)
        prompts = next(method.flow(request))
        served = {prompt.token_ids for prompt in prompts}
        assert set(data.dataset[index].rows) <= served
        assert data.dataset[index].rows[0] == prompts[0].token_ids


ZERANK = """
method: pointwise
layout: chat
chat_layout: chatml
system_message: "{query}"
instructed_query: "{query} ({instruction})"
body: "{document}"
positive: "Yes"
negative: ""
"""
RAW = """
method: pointwise
layout: raw
body: "A: {query} B: {passage} {instruction} Relevant?"
instruction: "Of cats?"
"""


@pytest.mark.parametrize(
    ("text", "head"),
    [(ZERANK, "single-token"), (ZERANK, "sequence-classification"), (RAW, "yes-no"), (RAW, "single-token")],
)
def test_any_layout_and_head_is_prompted_as_it_was_trained(tiny, smollm2_tokenizer, tmp_path, text, head):
    """With the instruction of the recipe, which the card keeps; the ids that are read are those of inference."""
    template = tmp_path / "mine.yaml"
    template.write_text(text, encoding="utf-8")
    path = write_records(tmp_path / "p.jsonl", [pointwise_record(i) for i in range(2)])
    changes = {"method": "pointwise", "data.group_size": 4, "prompt.template": str(template), "prompt.head": head}
    data = prepare(
        recipe_for(tiny, path, tmp_path / "o", **changes, **{"prompt.instruction": "be strict"}), smollm2_tokenizer
    )
    method = make_method(data.card, RankingSettings(), smollm2_tokenizer)
    record = data.dataset.records[0]
    candidates = [Candidate(docid=p.docid, score=0.0, doc={"text": p.text}) for p in record.positives]
    (prompt,) = next(method.flow(Request(query=Query(qid="q", text=record.query), candidates=tuple(candidates[:1]))))
    assert "be strict" in prompt.text
    assert prompt.token_ids == data.dataset[0].rows[0]
    assert list(data.collator.answer_ids) == [smollm2_tokenizer.encode(token)[0] for token in prompt.identifiers]
    assert len(prompt.identifiers) == {"single-token": 1, "yes-no": 2}.get(head, 0)


def test_tokens_are_those_that_follow_the_end_of_the_prompt(tiny, llama2_tokenizer, tmp_path):
    """Llama 2's tokenizer has two tokens `yes`; behind a question mark it is the one without a blank."""
    template = tmp_path / "mine.yaml"
    template.write_text(RAW, encoding="utf-8")
    path = write_records(tmp_path / "p.jsonl", [pointwise_record(i) for i in range(2)])
    changes = {"method": "pointwise", "data.group_size": 4, "prompt.template": str(template), "prompt.head": "yes-no"}
    data = prepare(recipe_for(tiny, path, tmp_path / "o", **changes), llama2_tokenizer)
    expected = [llama2_tokenizer.encode(f"?{word}", add_special_tokens=False)[-1] for word in ("yes", "no")]
    assert expected != [llama2_tokenizer.encode(word, add_special_tokens=False)[-1] for word in ("yes", "no")]
    assert list(data.collator.answer_ids) == expected
    method = make_method(data.card, RankingSettings(), llama2_tokenizer)
    candidate = Candidate(docid="d", score=0.0, doc={"text": "a passage"})
    (prompt,) = next(method.flow(Request(query=Query(qid="q", text="what"), candidates=(candidate,))))
    assert IdentifierIds(SafeTokenizer(llama2_tokenizer)).of(prompt) == expected


def options(**changes):
    return RerankOptions(dtype="float32", device="cpu", with_trace=True, **changes)


class Trained(TrainerCallback):
    """Keeps the model that the trainer has in memory at the end of its last step."""

    def __init__(self):
        self.model = None

    def on_train_end(self, args, state, control, model=None, **arguments):
        self.model = model.eval()


def read(model, batch):
    """What a trained model says of a batch."""
    wanted = ("input_ids", "labels", "read_positions", "read_ids")
    with torch.no_grad():
        return model(**{name: batch[name] for name in wanted if name in batch})


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("objective", ["ranking", "combined"])
def test_a_listwise_checkpoint_gives_the_trainer_s_logits(tiny, smollm2_tokenizer, tmp_path, objective, lora):
    """No flag but the folder: the card says how. At the bracket, rerank reads what the model in training had there."""
    records = [listwise_record(i) for i in range(4)]
    path = write_records(tmp_path / "d.jsonl", records)
    changes = {"objective.name": objective, "lora.enabled": lora, "lora.r": 4, "schedule.max_steps": 4}
    recipe = recipe_for(tiny, path, tmp_path / "out", **changes)
    trained = Trained()
    out = train(recipe, callbacks=[trained]).output_dir
    assert (load_card(out).answer, load_card(out).identifiers) == ("first-token", "alpha")
    data = prepare(recipe, smollm2_tokenizer)
    with load_reranker(out, options()) as reranker:
        results = reranker.rerank([request_of(record) for record in records[:2]])
    for number, result in enumerate(results):
        logits = read(trained.model, data.collator([data.dataset[number]]))["read_logits"][0]
        torch.testing.assert_close(torch.tensor(result.trace[0].scores), logits, atol=1e-4, rtol=0)
        order = logits.argsort(descending=True).tolist()
        assert [int(c.docid) for c in result.candidates] == order


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_generation_checkpoint_gives_the_trainer_s_logits(tiny, smollm2_tokenizer, tmp_path, lora):
    """At every token of the answer; learnt by heart, the answer is what rerank reads."""
    from rankllm_infer.checkpoints.model_files import find_model
    from rankllm_infer.engines.transformers.batches import TransformersSettings
    from rankllm_infer.engines.transformers.loading import load_model as load_served

    record = listwise_record(0)
    path = write_records(tmp_path / "d.jsonl", [record])
    changes = {"lora.enabled": lora, "lora.r": 16, "schedule.max_steps": 4 if lora else 60}
    changes |= {"optim.learning_rate": 5e-3, "schedule.lr_scheduler": "constant"}
    recipe = recipe_for(tiny, path, tmp_path / "out", **changes)
    trained = Trained()
    out = train(recipe, callbacks=[trained]).output_dir
    data = prepare(recipe, smollm2_tokenizer)
    batch = data.collator([data.dataset[0]])
    served = load_served(find_model(str(out)), "causal", TransformersSettings(dtype="float32", device="cpu")).model
    with torch.no_grad():
        logits = served(input_ids=batch["input_ids"]).logits[batch["labels"] != -100]
    torch.testing.assert_close(logits, read(trained.model, batch)["token_logits"], atol=1e-3, rtol=1e-4)
    if lora:
        return  # an adapter on a random model learns nothing by heart
    with load_reranker(out, options()) as reranker:
        (result,) = reranker.rerank([request_of(record)])
    target = [ord(letter) - ord("A") for letter in re.findall(r"\[(\w)\]", record["conversations"][-1]["value"])]
    assert result.status == "ok"
    assert [int(c.docid) for c in result.candidates] == target


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("head", ["sequence-classification", "yes-no", "single-token"])
def test_a_pointwise_checkpoint_gives_the_trainer_s_scores(tiny, smollm2_tokenizer, tmp_path, head, lora):
    """Score layer, yes/no and one token, full and adapter; the trained positive ends on top after enough steps."""
    records = [pointwise_record(i) for i in range(2)]
    path = write_records(tmp_path / "p.jsonl", records)
    changes = {
        "method": "pointwise",
        "data.group_size": 4,
        "prompt.head": head,
        "lora.enabled": lora,
        "lora.r": 8,
        "lora.dropout": 0.0,
        "schedule.max_steps": 30,
        "optim.learning_rate": 1e-2,
        "batch.per_device": 2,
    }
    recipe = recipe_for(tiny, path, tmp_path / "out", **changes)
    trained = Trained()
    out = train(recipe, callbacks=[trained]).output_dir
    record = records[0]
    passages = record["negative_passages"] + record["positive_passages"]
    candidates = tuple(Candidate(docid=p["docid"], score=0.0, doc={"text": p["text"]}) for p in passages)
    request = Request(query=Query(qid="q", text=record["query"]), candidates=candidates)
    with load_reranker(out, options()) as reranker:
        (result,) = reranker.rerank([request])
    assert result.candidates[0].docid == "p0"
    data = prepare(recipe, smollm2_tokenizer)
    rows = tuple(data.dataset.encoder.encode(record["query"], title="", text=p["text"]) for p in passages)
    said = read(trained.model, data.collator([PointwiseItem(0, rows, None)]))
    expected = said["scores"] if "scores" in said else said["read_logits"][:, 0]
    if head == "yes-no":
        expected = expected - said["read_logits"][:, 1]
    found = {candidate.docid: candidate.model_score for candidate in result.candidates}
    assert [found[p["docid"]] for p in passages] == pytest.approx(expected.tolist(), abs=1e-3)

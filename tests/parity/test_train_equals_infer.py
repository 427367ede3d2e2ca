"""What a model is trained on is what it is served: the same ids, the same logits, by way of the checkpoint's card."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch")

from training_fakes import listwise_record, pointwise_record, save_tiny, write_records  # noqa: E402

from rankllm_core.card import ListwiseCard, PointwiseCard, load_card  # noqa: E402
from rankllm_core.template import load_template  # noqa: E402
from rankllm_core.types import Candidate, Query, Request  # noqa: E402
from rankllm_infer.api import load_reranker, token_writer  # noqa: E402
from rankllm_infer.listwise import ListwisePlan, rerank_listwise  # noqa: E402
from rankllm_infer.pointwise import PointwisePlan, rerank_pointwise  # noqa: E402
from rankllm_infer.settings import RerankOptions  # noqa: E402
from rankllm_train.api import prepare, train  # noqa: E402
from rankllm_train.models import load_model  # noqa: E402
from rankllm_train.recipe import Recipe  # noqa: E402

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


NASTY = "it says <|im_end|> and <|im_start|>system, caf\u00e9 &amp; \u201cquotes\u201d, 50% {x} \\n"


@pytest.mark.parametrize(
    ("objective", "kind"), [("generation", "numeric"), ("ranking", "alpha"), ("combined", "alpha")]
)
def test_listwise_ids_in_training_are_those_at_inference(tiny, smollm2_tokenizer, tmp_path, objective, kind):
    """For ordinary passages and for ones with control tokens, entities and braces in them."""
    from rankllm_core.text import fix_text

    records = [listwise_record(i, kind=kind) for i in range(3)]
    human = records[1]["conversations"][1]
    human["value"] = re.sub(r"^(\[(?:1|A)\]) .*$", lambda m: f"{m[1]} {fix_text(NASTY)}", human["value"], flags=re.M)
    path = write_records(tmp_path / "d.jsonl", records)
    data = prepare(recipe_for(tiny, path, tmp_path / "o", **{"objective.name": objective}), smollm2_tokenizer)
    assert isinstance(data.card, ListwiseCard)
    assert data.card.template == load_template("rank_zephyr" if kind == "numeric" else "rank_zephyr_alpha")
    writer = token_writer(data.card, smollm2_tokenizer)
    plan = ListwisePlan(card=data.card)
    for record, example in zip(records, data.dataset.examples, strict=True):
        (prompt,) = next(rerank_listwise(request_of(record), plan, writer))
        n = example.n_prompt + (1 if data.card.answer == "first-token" else 0)
        assert prompt.token_ids == tuple(example.token_ids[:n])


@pytest.mark.parametrize("template", ["rankllama", "rankllama-v2", "yes_no"])
def test_pointwise_ids_in_training_are_those_at_inference(tiny, smollm2_tokenizer, tmp_path, template):
    """All pairs of a group."""
    path = write_records(tmp_path / "p.jsonl", [pointwise_record(i) for i in range(2)])
    head = "yes-no" if template == "yes_no" else "sequence-classification"
    changes = {"method": "pointwise", "data.group_size": 4, "prompt.template": template, "prompt.head": head}
    data = prepare(recipe_for(tiny, path, tmp_path / "o", **changes), smollm2_tokenizer)
    assert isinstance(data.card, PointwiseCard)
    writer = token_writer(data.card, smollm2_tokenizer)
    for index, record in enumerate(data.dataset.records):
        passages = [*record.positives, *record.negatives]
        candidates = tuple(
            Candidate(docid=p.docid, score=0.0, doc={"title": p.title, "text": p.text}) for p in passages
        )
        request = Request(query=Query(qid=record.qid, text=record.query), candidates=candidates)
        prompts = next(rerank_pointwise(request, PointwisePlan(card=data.card), writer))
        served = {prompt.token_ids for prompt in prompts}
        assert set(data.dataset[index].rows) <= served
        assert data.dataset[index].rows[0] == prompts[0].token_ids


def options(**changes):
    return RerankOptions(dtype="float32", device="cpu", with_trace=True, **changes)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("objective", ["generation", "ranking", "combined"])
def test_a_listwise_checkpoint_reranks_as_it_was_trained(tiny, tmp_path, objective, lora):
    """No flag but the folder: the card says how. The logits at the bracket are the trainer's own."""
    records = [listwise_record(i) for i in range(4)]
    path = write_records(tmp_path / "d.jsonl", records)
    changes = {"objective.name": objective, "lora.enabled": lora, "lora.r": 4, "lora.dropout": 0.0}
    recipe = recipe_for(tiny, path, tmp_path / "out", **changes)
    out = train(recipe).output_dir
    card = load_card(out)
    assert card.answer == ("permutation" if objective == "generation" else "first-token")
    assert card.identifiers == "alpha"
    with load_reranker(out, options()) as reranker:
        (result,) = reranker.rerank([request_of(records[0])])
    assert sorted(c.docid for c in result.candidates) == ["0", "1", "2"]
    if objective == "generation" or lora:
        return
    from transformers import AutoTokenizer

    data = prepare(recipe, AutoTokenizer.from_pretrained(out))
    section = recipe.changed({"model.name_or_path": str(out)}).model
    model = load_model(section, kind="causal", lora=recipe.lora, seed=0).eval()
    batch = data.collator([data.dataset[0]])
    with torch.no_grad():
        logits = model(**{k: batch[k] for k in ("input_ids", "read_positions", "read_ids")})["read_logits"][0]
    torch.testing.assert_close(torch.tensor(result.trace[0].scores), logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("head", ["sequence-classification", "yes-no"])
def test_a_pointwise_checkpoint_reranks_as_it_was_trained(tiny, tmp_path, head, lora):
    """Score layer and yes/no, full and adapter; the trained positive ends on top after enough steps."""
    records = [pointwise_record(i) for i in range(2)]
    path = write_records(tmp_path / "p.jsonl", records)
    changes = {
        "method": "pointwise",
        "data.group_size": 4,
        "prompt.head": head,
        "lora.enabled": lora,
        "lora.r": 8,
        "lora.dropout": 0.0,
        "schedule.max_steps": 40,
        "optim.learning_rate": 1e-2,
        "batch.per_device": 2,
    }
    out = train(recipe_for(tiny, path, tmp_path / "out", **changes)).output_dir
    record = records[0]
    passages = record["negative_passages"] + record["positive_passages"]
    candidates = tuple(Candidate(docid=p["docid"], score=0.0, doc={"text": p["text"]}) for p in passages)
    request = Request(query=Query(qid="q", text=record["query"]), candidates=candidates)
    with load_reranker(out, options()) as reranker:
        (result,) = reranker.rerank([request])
    assert result.candidates[0].docid == "p0"

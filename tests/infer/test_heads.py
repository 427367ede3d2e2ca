"""Heads of pointwise models from checkpoint to results: one token, two tokens, or a score layer, with any layout."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_infer import RerankOptions, load_reranker, make_request, plan_reranking

QUERY, PASSAGES = "what is a cat", ["a small animal", "a language of proofs", "the king of France"]
ZERANK = {
    "method": "pointwise",
    "layout": "chat",
    "chat_layout": "chatml",
    "system_message": "{query}",
    "instructed_query": "{query} ({instruction})",
    "body": "{document}",
    "positive": "Yes",
    "negative": "",
}
RAW = {"method": "pointwise", "layout": "raw", "body": "A: {query}\nB: {document}\nRelevant? ", "negative": ""}
CHATML = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def with_card(folder, tmp_path, **card):
    """A copy of a checkpoint with a given card."""
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    text = yaml.safe_dump({"format": 3, "kind": "pointwise", **card})
    (copy / "rankllm.yaml").write_text(text, encoding="utf-8")
    return copy


def scores_of(folder, *, options=None, instruction=None):
    """docid -> (model_score, probability)."""
    with load_reranker(folder, options or RerankOptions(dtype="float32")) as reranker:
        (result,) = reranker.rerank([make_request(QUERY, PASSAGES, instruction=instruction)])
    assert result.error is None, result.error
    return {c.docid: (c.model_score, c.probability) for c in result.candidates}


@torch.inference_mode()
def last_logits(folder, texts, tokenizer):
    """The language model's logits after each text, from plain transformers."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return [model(torch.tensor([tokenizer.encode(text)])).logits[0, -1] for text in texts]


def test_one_token_is_read_in_a_chat(tiny_causal, tmp_path, smollm2_tokenizer):
    """zerank-2's prompt: the raw logit of `Yes`, and the probability that its authors publish."""
    folder = with_card(tiny_causal, tmp_path, template=ZERANK, head="single-token", probability_scale=5.0)
    found = scores_of(folder)
    texts = [CHATML.format(QUERY, passage) for passage in PASSAGES]
    (yes,) = smollm2_tokenizer.encode("Yes")
    for number, logits_V in enumerate(last_logits(folder, texts, smollm2_tokenizer), start=1):
        score, probability = found[str(number)]
        assert score == pytest.approx(logits_V[yes].item(), abs=1e-5)
        assert probability == pytest.approx(1 / (1 + math.exp(-logits_V[yes].item() / 5)), abs=1e-6)


def test_two_tokens_are_read_behind_a_raw_text(tiny_causal, tmp_path, smollm2_tokenizer):
    """The difference of the logits, without chat turns."""
    template = RAW | {"positive": "yes", "negative": "no"}
    found = scores_of(with_card(tiny_causal, tmp_path, template=template, head="yes-no"))
    texts = [f"A: {QUERY}\nB: {passage}\nRelevant? " for passage in PASSAGES]
    yes, no = (smollm2_tokenizer.encode(word)[0] for word in ("yes", "no"))
    for number, logits_V in enumerate(last_logits(tiny_causal, texts, smollm2_tokenizer), start=1):
        assert found[str(number)][0] == pytest.approx((logits_V[yes] - logits_V[no]).item(), abs=1e-5)
        assert found[str(number)][1] is None


@pytest.mark.parametrize("template", [ZERANK, RAW], ids=["chat", "raw"])
def test_a_score_head_is_read_behind_any_layout(tiny_classifier, tmp_path, smollm2_tokenizer, template):
    """Conversions of Qwen3-Reranker: chat turns, and a score layer in place of the language model's head."""
    found = scores_of(with_card(tiny_classifier, tmp_path, template=template))
    model = AutoModelForSequenceClassification.from_pretrained(tiny_classifier, dtype=torch.float32).eval()
    for number, passage in enumerate(PASSAGES, start=1):
        text = CHATML.format(QUERY, passage) if template is ZERANK else f"A: {QUERY}\nB: {passage}\nRelevant? "
        with torch.inference_mode():
            score = model(torch.tensor([smollm2_tokenizer.encode(text)])).logits[0, 0].item()
        assert found[str(number)][0] == pytest.approx(score, abs=1e-5)


def test_without_a_card_the_checkpoint_says_which_head(tiny_classifier, tiny_causal, tmp_path):
    """The same template, with a score layer or with a language model."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(ZERANK), encoding="utf-8")
    for folder, head in ((tiny_classifier, "sequence-classification"), (tiny_causal, "single-token")):
        plan = plan_reranking(folder, RerankOptions(method="pointwise", template=path))
        assert plan.card.card.head == head


def test_a_requests_instruction_goes_before_the_runs(tiny_causal, tmp_path, smollm2_tokenizer):
    """The run's precedes the template's; the scores are those of the text with it."""
    folder = with_card(tiny_causal, tmp_path, template=ZERANK, head="single-token")
    (yes,) = smollm2_tokenizer.encode("Yes")
    of_run = RerankOptions(dtype="float32", instruction="the run's")
    asked = {
        f"{QUERY} (the run's)": scores_of(folder, options=of_run),
        f"{QUERY} (its own)": scores_of(folder, options=of_run, instruction="its own"),
        QUERY: scores_of(folder),
    }
    texts = [CHATML.format(query, PASSAGES[0]) for query in asked]
    for found, logits_V in zip(asked.values(), last_logits(folder, texts, smollm2_tokenizer), strict=True):
        assert found["1"][0] == pytest.approx(logits_V[yes].item(), abs=1e-5)


def test_an_instruction_without_a_place_is_refused(tiny_classifier, tiny_causal):
    """Before the model is loaded, or for the single query that contains it."""
    with pytest.raises(ConfigError, match="--instruction has no effect: template rankllama takes no instruction"):
        plan_reranking(tiny_classifier, RerankOptions(instruction="be strict"))
    with pytest.raises(ConfigError, match="--instruction has no effect on a listwise reranker"):
        plan_reranking(tiny_causal, RerankOptions(method="listwise", instruction="be strict"))
    for folder in (tiny_classifier, tiny_causal):
        with load_reranker(folder, RerankOptions(dtype="float32")) as reranker:
            (result,) = reranker.rerank([make_request(QUERY, PASSAGES, instruction="be strict")])
        assert result.status == "failed"
        assert result.error.startswith("query '1': its instruction has no effect: ")


def test_a_server_cannot_tell_one_tokens_logit(tiny_causal, tmp_path):
    """Log-probabilities of one token are not logits: the ranking would differ."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(ZERANK), encoding="utf-8")
    options = RerankOptions(engine="openai", base_url="http://127.0.0.1:9/v1", method="pointwise", template=path)
    with pytest.raises(RankLLMError, match="is read by the logit of one token, but a server reports log-probabilities"):
        load_reranker("m", options)


def test_probability_and_instruction_are_in_the_results(tiny_causal, tmp_path, rankllm):
    """Also in a resumed run; results read back as requests keep the instruction but no probability."""
    folder = with_card(tiny_causal, tmp_path, template=ZERANK, head="single-token", probability_scale=5.0)
    requests = tmp_path / "requests.jsonl"
    candidates = [{"docid": f"d{n}", "score": 1, "doc": {"text": text}} for n, text in enumerate(PASSAGES)]
    records = [
        {"query": {"qid": "1", "text": QUERY}, "instruction": "be strict", "candidates": candidates},
        {"query": {"qid": "2", "text": QUERY}, "candidates": candidates},
    ]
    requests.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    out = tmp_path / "out.jsonl"
    asked = ("rerank", "--model-path", folder, "--requests", requests, "--dtype", "float32", "--output-jsonl", out)
    assert rankllm(*asked).code == 0
    results = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [record.get("instruction") for record in results] == ["be strict", None]
    for record in results:
        for candidate in record["candidates"]:
            expected = 1 / (1 + math.exp(-candidate["model_score"] / 5))
            assert candidate["probability"] == pytest.approx(expected, abs=1e-9)
    again = tmp_path / "again.jsonl"
    assert rankllm(*asked[:4], out, *asked[5:-1], again).code == 0
    assert again.read_bytes() == out.read_bytes()

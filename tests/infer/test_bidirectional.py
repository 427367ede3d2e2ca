"""Decoders with bidirectional attention and pooled states, as NVIDIA publishes its rerankers."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

pytest.importorskip("torch")

import torch
import transformers
from published_prompts import NEMOTRON

from rankllm_core.card import PointwiseCard, published_card, save_card
from rankllm_core.errors import ConfigError, ContractError
from rankllm_core.prompts.template import pointwise_template
from rankllm_infer import RerankOptions, load_reranker, make_request
from rankllm_infer.checkpoints.bidirectional import Bidirectional, bidirectional_of
from rankllm_infer.plan import plan_reranking

CARD = published_card("nvidia/llama-nemotron-rerank-1b-v2")
QUERY = "what is a cat"
PASSAGES = ("a small animal that lives with people", "rain", "the king of France likes cats. " * 30)
PUBLISHED = {"model_type": "llama_bidirec", "architectures": ["LlamaBidirectionalForSequenceClassification"]}
SETTINGS = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16384,
    "initializer_range": 0.3,
    "num_labels": 1,
    "pad_token_id": 0,
}


def save(folder, tokenizer, *, architecture="Llama", **declared):
    """A random decoder with a score head. declared: what its configuration says besides. Returns the model."""
    config = getattr(transformers, f"{architecture}Config")(**SETTINGS, vocab_size=len(tokenizer))
    torch.manual_seed(5)
    model = getattr(transformers, f"{architecture}ForSequenceClassification")(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | declared))
    return model


def states_of(model, ids):
    """States of each token, where all see all: plain attention of transformers under a mask of zeros."""
    model.set_attn_implementation("eager")
    mask = torch.zeros(1, 1, len(ids), len(ids))
    with torch.no_grad():
        return model.model(input_ids=torch.tensor([ids]), attention_mask=mask, use_cache=False).last_hidden_state[0]


POOLS = {
    "avg": lambda states: states.sum(0) / len(states),
    "cls": lambda states: states[0],
    "last": lambda states: states[-1],
}


def expected(model, tokenizer, pooling="avg", temperature=1.0):
    """What the published formula gives each passage."""
    texts = [NEMOTRON.format(query=QUERY, document=passage.strip()) for passage in PASSAGES]
    pooled = [POOLS[pooling](states_of(model, tokenizer.encode(text))) for text in texts]
    return [model.score(state).item() / temperature for state in pooled]


def scores(folder, **options):
    """The model's scores of PASSAGES, in their order."""
    asked = RerankOptions(**{"dtype": "float32", "device": "cpu"} | options)
    with load_reranker(folder, asked) as reranker:
        (result,) = reranker.rerank([make_request(QUERY, [passage.strip() for passage in PASSAGES])])
    assert result.error is None
    found = {candidate.docid: candidate.model_score for candidate in result.candidates}
    return [found[str(number)] for number in (1, 2, 3)]


@pytest.mark.parametrize("attention", ["auto", "sdpa", "eager"])
@pytest.mark.parametrize("pooling", POOLS)
def test_a_published_model_scores_as_its_formula_says(tmp_path, llama2_tokenizer, pooling, attention):
    """By the name of its folder, without an option and without the code that comes with it."""
    folder = tmp_path / "llama-nemotron-rerank-1b-v2"
    model = save(folder, llama2_tokenizer, **PUBLISHED, pooling=pooling, temperature=2.0)
    if pooling != "avg":  # the shipped card names another pooling, so that the folder brings its own
        names = {"cls": "first", "last": "last"}
        save_card(replace(CARD, pooling=names[pooling]), folder)
    found = scores(folder, attn_implementation=attention)
    assert found == pytest.approx(expected(model, llama2_tokenizer, pooling, 2.0), abs=1e-5)


def test_batches_without_padding_give_what_prompts_alone_give(tmp_path, llama2_tokenizer):
    """In bfloat16, where prompts run together, near the scores in float32; and a probability by the sigmoid."""
    folder = tmp_path / "llama-nemotron-rerank-1b-v2"
    model = save(folder, llama2_tokenizer, **PUBLISHED, pooling="avg")
    whole = expected(model, llama2_tokenizer)
    for attention in ("auto", "sdpa"):
        assert scores(folder, dtype="bfloat16", attn_implementation=attention) == pytest.approx(whole, abs=0.1)
    with load_reranker(folder, RerankOptions(dtype="float32", device="cpu")) as reranker:
        (result,) = reranker.rerank([make_request(QUERY, PASSAGES)])
    for candidate in result.candidates:
        assert candidate.probability == pytest.approx(1 / (1 + math.exp(-candidate.model_score)))


@pytest.mark.parametrize("architecture", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_a_card_says_what_a_configuration_does_not(tmp_path, smollm2_tokenizer, architecture):
    """A decoder trained both ways under its usual model type: the card declares attention and pooling."""
    model = save(tmp_path, smollm2_tokenizer, architecture=architecture)
    template = pointwise_template("llama_nemotron_rerank")
    causal = PointwiseCard(template=template, query_tokens=512, passage_tokens=7500)
    save_card(replace(causal, attention="bidirectional", pooling="mean"), tmp_path)
    both_ways = scores(tmp_path)
    assert both_ways == pytest.approx(expected(model, smollm2_tokenizer), abs=1e-5)
    save_card(causal, tmp_path)
    assert scores(tmp_path) != pytest.approx(both_ways, abs=1e-2)


def test_an_adapter_over_it_is_merged(tmp_path, llama2_tokenizer):
    """PEFT's own adapter with a score head, over the published configuration."""
    import peft

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    model = save(base, llama2_tokenizer, **PUBLISHED, pooling="avg")
    settings = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=4,
        target_modules=["q_proj", "v_proj"],
        modules_to_save=["score"],
        init_lora_weights=False,
    )
    tuned = peft.get_peft_model(model, settings)
    with torch.no_grad():
        tuned.base_model.model.score.modules_to_save["default"].weight.mul_(-2)
    tuned.save_pretrained(adapter)
    save_card(CARD, adapter)
    merged = tuned.merge_and_unload()
    assert scores(adapter, base_model=str(base)) == pytest.approx(expected(merged, llama2_tokenizer), abs=1e-5)


@pytest.mark.parametrize(
    ("config", "card", "message"),
    [
        (PUBLISHED, replace(CARD, attention="causal", pooling=None), "config.json declares bidirectional.*card causal"),
        (PUBLISHED | {"pooling": "cls"}, CARD, "names pooling 'first', but the card 'mean'"),
        (PUBLISHED | {"pooling": "max"}, None, "pooling: expected avg, cls, last, found 'max'"),
        (PUBLISHED | {"temperature": 0}, None, "temperature: expected a number above 0, found 0"),
        ({"model_type": "qwen3", "is_causal": False}, None, "neither config.json nor the card names a pooling"),
        (
            {"model_type": "gpt2"},
            CARD,
            "bidirectional attention is supported for llama, mistral, qwen2, qwen3, found model type 'gpt2'",
        ),
    ],
)
def test_contradictions_are_one_line(config, card, message):
    """Between configuration and card, and within a configuration."""
    with pytest.raises(ContractError, match=message):
        bidirectional_of(config, name="MODEL", card=card)


def test_what_a_configuration_says():
    """NVIDIA's own model type, a flag of transformers, and neither."""
    assert bidirectional_of(PUBLISHED, name="m") == Bidirectional(architecture="llama", pooling="mean")
    flagged = {"model_type": "mistral", "is_causal": False, "pooling": "last"}
    assert bidirectional_of(flagged, name="m") == Bidirectional(architecture="mistral", pooling="last")
    assert bidirectional_of({"model_type": "llama"}, name="m") is None
    assert bidirectional_of({"model_type": "bert"}, name="m") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compile": True}, "--compile: .* has bidirectional attention"),
        ({"method": "listwise"}, "needs a card for its score head, found a card that is listwise"),
        ({"method": "pointwise", "template": "yes_no", "no_card": True}, "read by yes-no"),
    ],
)
def test_what_such_a_model_cannot_do_is_said_before_weights_are_read(tmp_path, llama2_tokenizer, options, message):
    """One line each; the weights are not there."""
    own = options.pop("no_card", False)
    folder = tmp_path / ("mine" if own else "llama-nemotron-rerank-1b-v2")
    save(folder, llama2_tokenizer, **PUBLISHED | ({"architectures": ["LlamaModel"]} if own else {}))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=message):
        plan_reranking(folder, RerankOptions(**options))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "mean"}, "pooling 'mean' needs bidirectional attention"),
        ({"attention": "both"}, "card: attention: "),
        ({"attention": "bidirectional", "pooling": "max"}, "card: pooling: "),
        (
            {"attention": "bidirectional", "head": "yes-no", "template": pointwise_template("yes_no")},
            "needs the score head of a decoder, found head 'yes-no'",
        ),
        ({"attention": "bidirectional", "template": pointwise_template("pair")}, "layout 'pair'"),
    ],
)
def test_a_card_that_cannot_be_is_refused(changes, message):
    """Attention and pooling go with a decoder's score head."""
    with pytest.raises(ConfigError, match=message):
        PointwiseCard(**{"template": pointwise_template("rankllama")} | changes)

"""Prompts of published rerankers: each bundled card produces the published string, character by character. The
expected strings are those of `published_prompts`.
"""

from __future__ import annotations

import math

import pytest
from published_prompts import CTXL, DUOT5, GEMMA, MONOT5, MXBAI, NEMOTRON, QWEN3, WEB_SEARCH, ZERANK

from rankllm_core.card import PointwiseCard, published_card
from rankllm_core.known_models import known_models
from rankllm_core.prompts.pairs import ComparisonEncoder, PairEncoder, PairLimits

CTXL_MODELS = tuple(f"ContextualAI/ctxl-rerank-v2-instruct-multilingual-{size}" for size in ("1b", "2b", "6b"))
ZERANK_1 = tuple(f"zeroentropy/zerank-1{name}" for name in ("", "-reranker", "-small", "-small-reranker"))
ENCODERS = (
    "BAAI/bge-reranker-v2-m3",
    "BAAI/bge-reranker-base",
    "BAAI/bge-reranker-large",
    "cross-encoder/ms-marco-MiniLM-L6-v2",
    "cross-encoder/ms-marco-MiniLM-L-12-v2",
    "cross-encoder/ms-marco-TinyBERT-L2-v2",
    "Alibaba-NLP/gte-reranker-modernbert-base",
)


def written(name, tokenizer, instruction=None):
    """The text of a pair as the model's card writes it, for the query `why` and the document `The reason.`."""
    card = published_card(name)
    assert isinstance(card, PointwiseCard)
    limits = PairLimits(query_tokens=card.query_tokens, passage_tokens=card.passage_tokens)
    encoder = PairEncoder(tokenizer, card.template, limits=limits, bos=card.bos)
    return encoder.encode_question("why", title="", text="The reason.", instruction=instruction)[0]


@pytest.mark.parametrize("name", ["Qwen/Qwen3-Reranker-0.6B", "tomaarsen/Qwen3-Reranker-0.6B-seq-cls"])
def test_qwen3_reranker_is_asked_as_on_its_model_card(name, smollm2_tokenizer):
    """Source: the model card of Qwen/Qwen3-Reranker-0.6B; vllm-project/vllm@5d6a1c2 qwen3_reranker.jinja."""
    plain = QWEN3.format(instruction=WEB_SEARCH, query="why", document="The reason.")
    assert written(name, smollm2_tokenizer) == plain
    told = QWEN3.format(instruction="Find code.", query="why", document="The reason.")
    assert written(name, smollm2_tokenizer, "Find code.") == told


@pytest.mark.parametrize("size", ["base", "large"])
def test_mxbai_rerank_is_asked_as_by_its_code(size, smollm2_tokenizer):
    """Source: mixedbread-ai/mxbai-rerank@03324ea mxbai_rerank/mxbai_rerank_v2.py."""
    name = f"mixedbread-ai/mxbai-rerank-{size}-v2"
    assert written(name, smollm2_tokenizer) == MXBAI.format(asked="query: why", document="The reason.")
    told = MXBAI.format(asked="instruction: Find code.\nquery: why", document="The reason.")
    assert written(name, smollm2_tokenizer, "Find code.") == told


@pytest.mark.parametrize("name", ["zeroentropy/zerank-2", "zeroentropy/zerank-2-reranker"])
def test_zerank_2_has_the_query_in_the_systems_turn(name, smollm2_tokenizer):
    """Source: vllm-project/vllm@33f1263 examples/pooling/score/template/zerank2.jinja."""
    assert written(name, smollm2_tokenizer) == ZERANK.format(asked="why", document="The reason.")
    asked = "<query>why</query>\n<instruction>Find code.</instruction>"
    assert written(name, smollm2_tokenizer, "Find code.") == ZERANK.format(asked=asked, document="The reason.")


@pytest.mark.parametrize("name", ZERANK_1)
def test_zerank_1_has_no_place_for_an_instruction(name, smollm2_tokenizer):
    """Source: cohere-ai/rcp-ndcg@28dc100 experiments/paper/rerankers/reference/zerank.py."""
    assert written(name, smollm2_tokenizer) == ZERANK.format(asked="why", document="The reason.")
    assert not published_card(name).template.takes_instruction


@pytest.mark.parametrize("name", CTXL_MODELS)
def test_contextual_ais_reranker_has_the_instruction_behind_the_query(name, smollm2_tokenizer):
    """Source: the model card of ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b."""
    assert written(name, smollm2_tokenizer) == CTXL.format(asked="why", document="The reason.")
    assert written(name, smollm2_tokenizer, "Find code.") == CTXL.format(asked="why Find code.", document="The reason.")


@pytest.mark.parametrize("size", ["base", "large", "3b"])
@pytest.mark.parametrize("steps", ["", "-10k"])
def test_monot5_is_asked_without_turns(size, steps, smollm2_tokenizer):
    """Source: castorini/pygaggle@0f31480 pygaggle/model/tokenize.py; the tokens, pygaggle/rerank/transformer.py."""
    name = f"castorini/monot5-{size}-msmarco{steps}"
    assert written(name, smollm2_tokenizer) == MONOT5.format(query="why", document="The reason.")
    card = published_card(name)
    assert (card.head, card.tokens_read) == ("yes-no", ("true", "false"))
    assert card.probability(0.0) == 0.5


@pytest.mark.parametrize("size", ["base", "3b"])
def test_duot5_is_shown_two_documents(size, smollm2_tokenizer):
    """Source: castorini/pygaggle@0f31480 pygaggle/model/tokenize.py; the tokens, pygaggle/rerank/transformer.py."""
    card = published_card(f"castorini/duot5-{size}-msmarco")
    encoder = ComparisonEncoder(smollm2_tokenizer, card.template, query_tokens=64, passage_tokens=216)
    expected = DUOT5.format(query="why", document0="The reason.", document1="Because.")
    assert encoder.encode("why", "The reason.", "Because.")[0] == expected
    assert card.tokens_read == ("true", "false")


def test_bge_reranker_gemma_is_asked_without_turns(smollm2_tokenizer):
    """Source: FlagOpen/FlagEmbedding@0dff36c FlagEmbedding/inference/reranker/decoder_only/base.py."""
    name = "BAAI/bge-reranker-v2-gemma"
    assert written(name, smollm2_tokenizer) == GEMMA.format(query="why", document="The reason.")
    assert not published_card(name).template.takes_instruction


def test_nemotron_rerank_reads_one_line_of_text_with_blanks_around_its_breaks(smollm2_tokenizer):
    """Source: vllm-project/vllm@42fa4c0 examples/pooling/score/template/nemotron-rerank.jinja."""
    name = "nvidia/llama-nemotron-rerank-1b-v2"
    assert written(name, smollm2_tokenizer) == NEMOTRON.format(query="why", document="The reason.")
    card = published_card(name)
    assert (card.attention, card.pooling, card.head) == ("bidirectional", "mean", "sequence-classification")


@pytest.mark.parametrize(
    ("name", "head", "positive", "negative"),
    [
        ("Qwen/Qwen3-Reranker-4B", "yes-no", "yes", "no"),
        ("mixedbread-ai/mxbai-rerank-large-v2", "yes-no", "1", "0"),
        ("zeroentropy/zerank-2", "single-token", "Yes", ""),
        ("zeroentropy/zerank-1-small", "single-token", "Yes", ""),
        ("BAAI/bge-reranker-v2-gemma", "single-token", "Yes", ""),
        (CTXL_MODELS[0], "single-token", "!", ""),
        (CTXL_MODELS[1], "single-token", "!", ""),
        (CTXL_MODELS[2], "single-token", "<unk>", ""),
    ],
)
def test_the_tokens_that_are_read_are_the_published_ones(name, head, positive, negative):
    """Case matters: "Yes" and "yes" are two tokens."""
    card = published_card(name)
    assert (card.head, card.template.positive, card.template.negative) == (head, positive, negative)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen3-Reranker-8B", 1 / (1 + math.exp(-2))),  # the softmax over "no" and "yes", 2 apart
        ("tomaarsen/Qwen3-Reranker-8B-seq-cls", 1 / (1 + math.exp(-2))),
        ("mixedbread-ai/mxbai-rerank-base-v2", 1 / (1 + math.exp(-2))),
        ("zeroentropy/zerank-2", 1 / (1 + math.exp(-2 / 5))),
        ("zeroentropy/zerank-1", 1 / (1 + math.exp(-2 / 5))),
        ("BAAI/bge-reranker-v2-gemma", 1 / (1 + math.exp(-2))),
        ("BAAI/bge-reranker-v2-m3", 1 / (1 + math.exp(-2))),
        (CTXL_MODELS[0], None),
        ("cross-encoder/ms-marco-MiniLM-L6-v2", None),
        ("castorini/rankllama-v1-7b-lora-passage", None),
    ],
)
def test_a_score_of_two_has_the_probability_that_its_authors_give_it(name, expected):
    """None if the authors define no probability."""
    found = published_card(name).probability(2.0)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_reads_its_tokenizers_own_format(name):
    """One card covers a family, in the older and the newer spelling of its name."""
    card = published_card(name)
    assert (card.head, card.template.name, card.template.layout) == ("sequence-classification", "pair", "pair")


def test_a_conversion_is_not_taken_for_the_model_that_it_was_made_of():
    """`Qwen3-Reranker-*` matches both; the longer pattern wins."""
    made, original = (published_card(f"x/Qwen3-Reranker-4B{end}") for end in ("-seq-cls", ""))
    assert (made.head, original.head) == ("sequence-classification", "yes-no")
    assert made.template == original.template


def test_a_file_states_the_format_that_its_card_needs():
    """As for a written card, an older release can say that it does not support the format."""
    for known in known_models():
        card = published_card(known.patterns[0].replace("*", "x"))
        assert known.card["format"] == card.to_dict()["format"], known.name

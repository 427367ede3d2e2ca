"""Encoder-decoders compared with plain transformers: ids, scores and orders of monoT5 and duoT5, and rejections."""

from __future__ import annotations

import json
from itertools import permutations

import pytest

pytest.importorskip("torch")

import torch
from encoder_models import TEXTS
from published_prompts import DUOT5, MONOT5
from t5_models import make_tokenizer, save_t5

from rankllm_core.card import published_card
from rankllm_core.errors import RankLLMError
from rankllm_core.prompts.pairs import ComparisonEncoder, PairEncoder, PairLimits
from rankllm_core.prompts.template import load_template
from rankllm_infer import RerankOptions, load_reranker, make_request, plan_reranking
from rankllm_infer.engines.transformers.model import pick_dtype

QUERY, PASSAGES = TEXTS[0], (*TEXTS[1:], "A llama", "café prices")
MONO = MONOT5.format(query="{}", document="{}")
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "initializer_factor": 1.0}
DUO = DUOT5.format(query="{}", document0="{}", document1="{}")


@pytest.fixture(scope="module")
def tokenizer():
    """T5's own format."""
    return make_tokenizer()


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    """Folder and model of a T5 with tied embeddings, as published, whose last states are therefore scaled."""
    folder = tmp_path_factory.mktemp("t5") / "monot5-base-msmarco"
    model = save_t5(folder, tokenizer)
    assert model.config.scale_decoder_outputs
    return folder, model


def margin(model, tokenizer, text, words=("true", "false")):
    """Logit difference of two words at the first step, with plain transformers."""
    ids = tokenizer(text, return_tensors="pt").input_ids
    start = torch.tensor([[model.config.decoder_start_token_id]])
    with torch.inference_mode():
        logits_V = model(input_ids=ids, decoder_input_ids=start).logits[0, 0].float()
    first, second = (logits_V[tokenizer.convert_tokens_to_ids(f"\u2581{word}")].item() for word in words)
    return first - second


def scores_of(result):
    """Model scores in the order of the passages."""
    said = {candidate.docid: candidate.model_score for candidate in result.candidates}
    return [said[docid] for docid in sorted(said, key=int)]


def rerank(folder, passages=PASSAGES, **options):
    """Result of one query on a CPU."""
    with load_reranker(folder, RerankOptions(device="cpu", **options)) as reranker:
        (result,) = reranker.rerank([make_request(QUERY, passages)])
    assert result.error is None
    return result


# monoT5.


def test_a_pairs_ids_are_the_tokenizers_own(tokenizer):
    """With a trailing `</s>`, also if a passage contains it or is truncated."""
    card = published_card("castorini/monot5-3b-msmarco-10k")
    encoder = PairEncoder(tokenizer, card.template, limits=PairLimits(query_tokens=64, passage_tokens=436))
    for passage in PASSAGES:
        text, ids = encoder.encode_question(QUERY, title="", text=passage)
        assert text == MONO.format(QUERY, passage)
        assert list(ids) == tokenizer(text).input_ids
    _, ids = encoder.encode_question(QUERY, title="", text="A </s> llama")
    assert ids.count(1) == 1
    assert ids[-1] == 1
    cut = PairEncoder(tokenizer, card.template, limits=PairLimits(query_tokens=3, passage_tokens=4))
    text, ids = cut.encode_question(QUERY, title="", text=TEXTS[1])
    assert text.split() == MONO.format("what is the", "The llama is a").split()
    assert list(ids) == tokenizer(text).input_ids


@pytest.mark.parametrize(
    ("architecture", "options"),
    [("T5", {}), ("T5", GATED), ("UMT5", {})],
)
def test_scores_are_those_of_plain_transformers(tokenizer, tmp_path, architecture, options):
    """In float32 to 1e-5, in order, without options: T5, FLAN-T5, mT5 (gated, with its own head) and umT5."""
    model = save_t5(tmp_path / "t5", tokenizer, architecture=architecture, **options)
    result = rerank(tmp_path / "t5", dtype="float32")
    expected = [margin(model, tokenizer, MONO.format(QUERY, passage)) for passage in PASSAGES]
    assert scores_of(result) == pytest.approx(expected, abs=1e-5)
    best_first = sorted(range(len(PASSAGES)), key=lambda place: -expected[place])
    assert [candidate.docid for candidate in result.candidates] == [str(place + 1) for place in best_first]


def test_a_published_name_has_its_card_and_its_probability(saved, tokenizer):
    """monoT5's score, the log softmax of "true", is the logarithm of the probability."""
    folder, model = saved
    result = rerank(folder, dtype="float32")
    for candidate in result.candidates:
        passage = PASSAGES[int(candidate.docid) - 1]
        two = torch.tensor([margin(model, tokenizer, MONO.format(QUERY, passage)), 0.0])
        assert candidate.probability == pytest.approx(two.log_softmax(0)[0].exp().item(), abs=1e-5)


def test_padded_batches_give_the_scores_of_single_rows(saved, tokenizer):
    """The mask hides padding: in bfloat16, batches of mixed lengths against single rows."""
    folder, _ = saved
    together, alone = (scores_of(rerank(folder, dtype="bfloat16", batch_size=size)) for size in (4, 1))
    assert together == pytest.approx(alone, abs=0.1)


def test_any_two_words_can_be_read(saved, tokenizer, tmp_path):
    """A user's template; a leading space is left to the tokenizer."""
    folder, model = saved
    template = tmp_path / "mine.yaml"
    template.write_text("method: pointwise\nlayout: raw\nbody: 'Document: {document} Query: {query}'\n")
    result = rerank(folder, dtype="float32", template=template)
    expected = [margin(model, tokenizer, f"Document: {p} Query: {QUERY}", ("yes", "no")) for p in PASSAGES]
    assert scores_of(result) == pytest.approx(expected, abs=1e-5)


# duoT5.


def test_a_comparisons_ids_are_the_tokenizers_own(tokenizer):
    """Two passages and a trailing `</s>`."""
    card = published_card("castorini/duot5-base-msmarco")
    encoder = ComparisonEncoder(
        tokenizer, card.template, query_tokens=card.query_tokens, passage_tokens=card.passage_tokens
    )
    for one, other in permutations(PASSAGES, 2):
        text, ids = encoder.encode(QUERY, one, other)
        assert text == DUO.format(QUERY, one, other)
        assert list(ids) == tokenizer(text).input_ids


def test_duot5_is_summed_as_its_authors_do(tokenizer, tmp_path):
    """SYM-SUM of plain transformers' probabilities (castorini/pygaggle@06371f1 pygaggle/rerank/transformer.py)."""
    folder = tmp_path / "duot5-base-msmarco"
    model = save_t5(folder, tokenizer)
    expected = [0.0] * len(PASSAGES)
    for one, other in permutations(range(len(PASSAGES)), 2):
        text = DUO.format(QUERY, PASSAGES[one], PASSAGES[other])
        p = torch.tensor(margin(model, tokenizer, text)).sigmoid().item()
        expected[one] += p
        expected[other] += 1 - p
    result = rerank(folder, dtype="float32")
    assert scores_of(result) == pytest.approx(expected, abs=1e-5)
    best_first = sorted(range(len(PASSAGES)), key=lambda place: -expected[place])
    assert [candidate.docid for candidate in result.candidates] == [str(place + 1) for place in best_first]
    assert result.usage.calls == len(PASSAGES) * (len(PASSAGES) - 1)
    assert result.usage.prompt_tokens > 0


def test_any_encoder_decoder_compares_passages(saved, tokenizer):
    """FLAN-T5 without a card, by heapsort: the top passage beats both of its children."""
    folder, model = saved
    result = rerank(folder, PASSAGES[:2], dtype="float32", method="pairwise", strategy="heapsort")
    prompt = load_template("pairwise_raw").body
    texts = [prompt.format(query=QUERY, passage_a=a, passage_b=b) for a, b in permutations(PASSAGES[:2], 2)]
    first, second = (margin(model, tokenizer, text, ("A", "B")) for text in texts)
    assert result.candidates[0].docid == ("1" if first > second else "2")


# What cannot be.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"engine": "vllm"},
            r"--engine vllm: .* is an encoder-decoder \(t5\), which only the transformers engine supports",
        ),
        ({"method": "listwise"}, "--method listwise: .*, which is read at a single token; use pointwise or pairwise"),
        ({"compile": True}, "--compile: .*, which cannot be compiled"),
        ({"dtype": "float16"}, "--dtype float16: .*, whose activations overflow float16; use bfloat16 or float32"),
        ({"template": "rankllama", "method": "pointwise"}, "but its card reads a score head"),
        ({"template": "yes_no"}, "template yes_no: is written as a chat, .* --prompt-template-path monot5"),
        ({"method": "pairwise", "template": "prp"}, "template prp: starts the answer with 'Passage'.*pairwise_raw"),
        (
            {"method": "pairwise", "template": "pairwise"},
            "is written as a chat, .* --prompt-template-path pairwise_raw",
        ),
        ({"template": "rank_zephyr"}, "is a singleturn_listwise template, but the method is pointwise"),
    ],
)
def test_what_an_encoder_decoder_cannot_do_is_said_before_it_is_loaded(tokenizer, tmp_path, options, said):
    """One line each, from the configuration alone."""
    folder = tmp_path / "flan"
    save_t5(folder, tokenizer)
    (folder / "model.safetensors").unlink()
    with pytest.raises(RankLLMError, match=said) as error:
        plan_reranking(folder, RerankOptions(**options))
    assert "\n" not in str(error.value)


def test_a_listwise_card_and_an_adapter_over_it_are_refused(saved, tmp_path):
    """LiT5 is read differently, and adapters over encoder-decoders are not merged."""
    folder, _ = saved
    card = "format: 1\nkind: listwise\ntemplate: rank_zephyr\n"
    listed = tmp_path / "lit5"
    listed.mkdir()
    (listed / "config.json").write_text((folder / "config.json").read_text())
    (listed / "rankllm.yaml").write_text(card)
    with pytest.raises(RankLLMError, match="is read at the decoder's first step, but its card is listwise"):
        plan_reranking(listed)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    values = {"base_model_name_or_path": str(folder), "peft_type": "LORA", "task_type": "SEQ_2_SEQ_LM"}
    (adapter / "adapter_config.json").write_text(json.dumps(values))
    with pytest.raises(RankLLMError, match=r"is an adapter of an encoder-decoder .* merge_and_unload"):
        plan_reranking(adapter)


def test_a_model_without_a_tokenizer_is_refused(saved, tmp_path):
    """transformers would create a vocabulary of a hundred tokens."""
    folder, _ = saved
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(RankLLMError, match=r"contains no tokenizer \(neither tokenizer.json nor spiece.model\)"):
        plan_reranking(tmp_path)


def test_a_word_of_several_tokens_is_refused(saved, tmp_path):
    """Only one token of an answer is read."""
    folder, _ = saved
    template = tmp_path / "mine.yaml"
    template.write_text("method: pointwise\nlayout: raw\nbody: '{document} {query}'\npositive: relevanter\n")
    with pytest.raises(RankLLMError, match=r"identifier 'relevanter' is .* tokens"):
        rerank(folder, template=template)


def test_float16_is_never_chosen_for_it():
    """Even where `auto` would select float16, as on Apple's GPUs."""
    mps = torch.device("mps")
    assert (pick_dtype("auto", mps), pick_dtype("auto", mps, takes_float16=False)) == (torch.float16, torch.float32)

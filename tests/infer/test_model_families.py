"""Other families of models than Llama: each way of reading works, or one line says which would."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("torch")

import torch
from model_families import FAMILIES, save_family
from ranking_server import request, write_jsonl

from rankllm_core.errors import ContractError
from rankllm_infer.engines.heads import backbone_of
from rankllm_infer.engines.trial import check_is_decoder, try_model

WAYS = {
    "permutation": (),
    "text": ("--free-decoding",),
    "first-token": ("--use-logits", "--use-alpha"),
    "yes-no": ("--method", "pointwise", "--prompt-template-path", "yes_no"),
}
NO_CACHE = r"cannot decode permutations, which takes a cache of keys and values \(.*\); use --free-decoding"
NO_DECODER = "is no decoder"
NO_CAUSAL = "transformers has no causal language model for"

EXPECTED: dict[str, dict[str, str]] = {
    **{family: {} for family in ("gemma3-text", "gpt2", "qwen3-moe", "llama4-text", "gemma3-vision")},
    **{family: {"permutation": NO_CACHE} for family in ("mamba", "mamba2", "rwkv")},
    "jamba": {"permutation": NO_CACHE},
    "recurrent-gemma": {"permutation": NO_CACHE, "text": "cannot be run"},
    "bert": dict.fromkeys(WAYS, NO_DECODER),
    "t5": dict.fromkeys(WAYS, NO_CAUSAL),
}
"""Family -> way of reading -> what is said in place of a ranking; ways that are not named work."""


@pytest.fixture
def run(rankllm, tmp_path, smollm2_tokenizer):
    """Rerank one query with a model of a family."""

    def rerank(family, *options):
        folder = tmp_path / family
        if not folder.exists():
            save_family(family, folder, smollm2_tokenizer)
        requests = write_jsonl(tmp_path / "requests.jsonl", request("q", 0, 1, 2))
        output = ("--output", tmp_path / "out.trec", "--overwrite", "--dtype", "float32", "--device", "cpu")
        return rankllm("rerank", "--model-path", folder, "--requests", requests, *output, *options)

    return rerank


@pytest.mark.parametrize("family", EXPECTED)
def test_a_family_is_reranked_with_or_one_line_says_why_not(run, family):
    """No traceback, and no ranking that is read off a model which cannot give it."""
    for way, options in WAYS.items():
        done = run(family, *options)
        said = EXPECTED[family].get(way)
        errors = [line for line in done.err.splitlines() if line.startswith("Error:")]
        if said is None:
            assert (done.code, errors) == (0, []), (way, done.err)
        else:
            assert (done.code, len(errors)) == (1, 1), (way, done.err)
            assert re.search(said, errors[0]), (way, errors[0])


def test_a_score_head_that_a_family_lacks_is_named(run):
    """transformers has none for Mamba."""
    done = run("mamba2", "--method", "pointwise", "--prompt-template-path", "rankllama")
    assert done.code == 1
    assert "transformers has no score head over a decoder for Mamba2" in done.err


@pytest.mark.parametrize("family", ["mixtral", "bamba", "falcon-mamba", "mistral"])
def test_a_model_passes_the_trial_of_decoding_only_where_its_cache_is_right(family):
    """Asked of the model itself: logits behind a cache are those without one."""
    from transformers import DynamicCache

    torch.manual_seed(3)
    model = FAMILIES[family]().eval()
    ids = torch.arange(1, 9)[None]
    with torch.inference_mode():
        whole = model(input_ids=ids, use_cache=False).logits[0, -1]
        try:
            cache = DynamicCache(config=model.config)
            model(input_ids=ids[:, :5], past_key_values=cache, use_cache=True)
            behind = model(input_ids=ids[:, 5:], past_key_values=cache, use_cache=True).logits[0, -1]
            is_right = torch.allclose(whole, behind, atol=1e-3)
        except (ValueError, TypeError, RuntimeError):
            is_right = False
    try:
        try_model(model, "permutation", source="m")
        passes = True
    except ContractError:
        passes = False
    assert passes == is_right


def test_a_decoder_of_an_encoders_family_is_one_by_its_configuration():
    """BERT with `is_decoder`; and Gemma for embeddings, whose tokens see each other."""
    check_is_decoder(FAMILIES["bert-decoder"](), "m")
    model = FAMILIES["gemma3-text"]()
    model.config.use_bidirectional_attention = True
    with pytest.raises(ContractError, match="m: Gemma3ForCausalLM is no decoder"):
        check_is_decoder(model, "m")


def test_the_backbone_is_found_where_the_prefix_is_wrong():
    """Llama 4's text model is `model`, and its prefix says `language_model`."""
    model = FAMILIES["llama4-text"]()
    assert backbone_of(model) is model.model
    with pytest.raises(ContractError, match="Linear has no backbone"):
        backbone_of(type("Linear", (torch.nn.Linear,), {"base_model_prefix": ""})(2, 2))

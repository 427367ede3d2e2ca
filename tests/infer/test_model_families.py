"""Model families other than Llama: each kind of read works, or one line says which would."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("torch")

import torch
from model_families import FAMILIES, save_family
from ranking_server import request, write_jsonl

from rankllm_core.errors import ContractError
from rankllm_core.nn.model_parts import backbone_of
from rankllm_infer.engines.transformers.trying import check_is_decoder, try_model

WAYS = {
    "permutation": (),
    "text": ("--free-decoding",),
    "first-token": ("--use-logits", "--use-alpha"),
    "yes-no": ("--method", "pointwise", "--prompt-template-path", "yes_no"),
}
NO_CACHE = r"cannot decode permutations, which requires a cache of keys and values \(.*\); use --free-decoding"
NO_DECODER = "is not a decoder"
ONE_TOKEN = "has no effect on a pointwise reranker"
NO_CAUSAL = "transformers has no causal language model for"

EXPECTED: dict[str, dict[str, str]] = {
    **{family: {} for family in ("gemma3-text", "gpt2", "qwen3-moe", "llama4-text", "gemma3-vision")},
    **{family: {} for family in ("mamba", "mamba2", "jamba")},
    "rwkv": {"permutation": NO_CACHE},
    "recurrent-gemma": {"permutation": NO_CACHE, "text": "cannot be run"},
    "bert": dict.fromkeys(WAYS, NO_DECODER),
    # Read at one token without being asked to, as monoT5 is.
    "t5": {"text": f"--free-decoding {ONE_TOKEN}", "first-token": f"--use-[a-z]+ {ONE_TOKEN}"},
    "longt5": dict.fromkeys(WAYS, NO_CAUSAL),
}
"""Family -> read -> message in place of a ranking; reads that are not listed work."""


@pytest.fixture
def run(rankllm, tmp_path, smollm2_tokenizer):
    """Rerank one query with a model of this family."""

    def rerank(family, *options):
        folder = tmp_path / family
        if not folder.exists():
            save_family(family, folder, smollm2_tokenizer)
        requests = write_jsonl(tmp_path / "requests.jsonl", request("q", 0, 1, 2))
        output = ("--output", tmp_path / "out.trec", "--overwrite", "--dtype", "float32", "--device", "cpu")
        return rankllm("rerank", "--model-path", folder, "--requests", requests, *output, *options)

    return rerank


QUICK = ("llama4-text", "mamba2", "bert", "t5", "longt5")


@pytest.mark.parametrize("family", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in EXPECTED])
def test_a_family_is_reranked_with_or_one_line_says_why_not(run, family):
    """No traceback, and no ranking from a model that cannot provide it."""
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


@pytest.mark.parametrize("family", ["rwkv", "recurrent-gemma"])
def test_a_model_that_would_forget_the_prompt_does_not_pass_the_trial(family):
    """One ignores such a cache silently, the other raises."""
    with pytest.raises(ContractError, match=NO_CACHE):
        try_model(FAMILIES[family]().eval(), "permutation", source="m")


def test_a_decoder_of_an_encoders_family_is_one_by_its_configuration():
    """BERT with `is_decoder`; and Gemma for embeddings, with bidirectional attention."""
    check_is_decoder(FAMILIES["bert-decoder"](), "m")
    model = FAMILIES["gemma3-text"]()
    model.config.use_bidirectional_attention = True
    with pytest.raises(ContractError, match="m: Gemma3ForCausalLM is not a decoder"):
        check_is_decoder(model, "m")


def test_the_backbone_is_found_where_the_prefix_is_wrong():
    """Llama 4's text model is `model`, and its prefix says `language_model`."""
    model = FAMILIES["llama4-text"]()
    assert backbone_of(model) is model.model
    with pytest.raises(ContractError, match="Linear has no backbone"):
        backbone_of(type("Linear", (torch.nn.Linear,), {"base_model_prefix": ""})(2, 2))

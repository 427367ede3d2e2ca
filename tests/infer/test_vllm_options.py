"""What vLLM is told, and what is said where it cannot be told, before anything is loaded."""

from __future__ import annotations

import importlib.util

import pytest

from rankllm_core.errors import ConfigError, MissingPackageError
from rankllm_infer.api import load_reranker
from rankllm_infer.engines.vllm.checks import lora_rank
from rankllm_infer.engines.vllm.settings import engine_arguments
from rankllm_infer.options import RerankOptions


def test_arguments_are_read_as_json_or_as_text():
    """In either spelling of a name; Python's three words count as JSON's."""
    texts = (
        "gpu_memory_utilization=0.8",
        "--block-size=64",
        "enforce_eager=True",
        "quantization=fp8",
        'hf_overrides={"a": [1]}',
        "load_format=a=b",
    )
    assert engine_arguments(texts) == {
        "gpu_memory_utilization": 0.8,
        "block_size": 64,
        "enforce_eager": True,
        "quantization": "fp8",
        "hf_overrides": {"a": [1]},
        "load_format": "a=b",
    }


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["enforce_eager"], r"--vllm-arg 'enforce_eager': expected KEY=VALUE"),
        (["=1"], "expected KEY=VALUE"),
        (["seed="], "expected KEY=VALUE"),
        (["seed=1", "seed=2"], "--vllm-arg seed: given twice"),
        (["tensor-parallel-size=2"], "--vllm-arg tensor_parallel_size: has an option of its own; use --num-gpus"),
        (["max_model_len=9"], r"use --context-size \(listwise\), or --q-max-len"),
        (["max_num_seqs=9"], "use --batch-size"),
        (["logprobs_mode=raw_logprobs"], "is determined by the model; leave it out"),
    ],
)
def test_an_argument_that_cannot_be_passed_on_is_refused(texts, message):
    """With the option that stands for it, where there is one; already when the options are put together."""
    with pytest.raises(ConfigError, match=message):
        engine_arguments(texts)
    with pytest.raises(ConfigError, match=message):
        RerankOptions(engine="vllm", vllm_args=tuple(texts))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vllm_args": ("block_size=64",)}, "--vllm-arg has no effect with --engine transformers"),
        ({"engine": "vllm", "device": "cpu"}, "--device has no effect with --engine vllm"),
        ({"engine": "vllm", "concurrency": 2}, "--concurrency has no effect with --engine vllm"),
    ],
)
def test_an_option_of_another_engine_is_refused(options, message):
    """An option without effect is an error."""
    with pytest.raises(ConfigError, match=message):
        RerankOptions(**options)


def test_the_options_of_both_local_engines_are_taken():
    """dtype, GPUs, sizes of batches and an adapter's base."""
    shared = {"dtype": "float32", "num_gpus": 2, "batch_size": 4, "batch_tokens": 4096, "base_model": "b"}
    for engine in ("transformers", "vllm"):
        options = RerankOptions(engine=engine, **shared)
        assert {name: getattr(options, name) for name in shared} == shared


def test_an_adapters_rank_is_the_largest_of_its_ranks():
    """PEFT lets single modules have a rank of their own."""
    assert lora_rank({"r": 16}) == 16
    assert lora_rank({"r": 16, "rank_pattern": {"q_proj": 64, "v_proj": 8}}) == 64


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_way_to_get_it_is_told(tiny_causal):
    """The extra is named, by a command that can be copied."""
    options = RerankOptions(engine="vllm", use_logits=True, use_alpha=True)
    with pytest.raises(
        MissingPackageError, match=r"which is not installed. Install it with: uv add 'rankllm-infer\[vl"
    ):
        load_reranker(tiny_causal, options)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_a_missing_vllm_is_reported_before_a_model_is_looked_for():
    """A download of gigabytes would be in vain."""
    with pytest.raises(MissingPackageError, match="engine 'vllm' needs vLLM"):
        load_reranker("no/such-model", RerankOptions(engine="vllm"))

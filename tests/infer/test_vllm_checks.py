"""Checkpoint problems that vLLM would silently accept are found without vLLM."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("torch")

import tiny_models
import torch
from safetensors.torch import load_file, save_file

from rankllm_core.errors import ContractError
from rankllm_infer.checkpoints.model_files import ModelFiles, find_folder
from rankllm_infer.checkpoints.quantization import Quantization
from rankllm_infer.engines.vllm.arguments import choose_dtype
from rankllm_infer.engines.vllm.checks import check_kind, declared_end

CLASSIFIER = "sequence-classification"


def check(model, base, kind):
    """Check a checkpoint against a base."""
    check_kind(ModelFiles(own=find_folder(str(model)), base=find_folder(str(base))), kind)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory, smollm2_tokenizer):
    """A causal model, a classifier, and an adapter of each kind for the causal one."""
    root = tmp_path_factory.mktemp("zoo")
    tiny_models.save_causal(root / "causal", smollm2_tokenizer)
    tiny_models.save_causal(root / "deeper", smollm2_tokenizer, layers=3)
    tiny_models.save_causal(root / "wider", smollm2_tokenizer, hidden=64)
    tiny_models.save_classifier(root / "classifier", smollm2_tokenizer)
    tiny_models.save_classifier(root / "two_labels", smollm2_tokenizer, labels=2)
    tiny_models.save_adapter(root / "head_adapter", root / "causal")
    tiny_models.save_adapter(root / "lm_adapter", root / "causal", task="CAUSAL_LM")
    return root


@pytest.mark.parametrize(
    ("model", "base", "kind"),
    [
        ("causal", "causal", "causal"),
        ("classifier", "classifier", CLASSIFIER),
        ("lm_adapter", "causal", "causal"),
        ("head_adapter", "causal", CLASSIFIER),
    ],
)
def test_what_belongs_together_passes(zoo, model, base, kind):
    """Full models and adapters of both kinds."""
    check(zoo / model, zoo / base, kind)


@pytest.mark.parametrize(
    ("model", "base", "kind", "message"),
    [
        ("causal", "causal", CLASSIFIER, r"no score head \(score.weight\) in the checkpoint; its scores would be rand"),
        ("two_labels", "two_labels", CLASSIFIER, "its head returns 2 scores per passage"),
        ("classifier", "classifier", "causal", "has a score head and no language model; use --method pointwise"),
        ("head_adapter", "causal", "causal", "the adapter was trained with a score head; use --method pointwise"),
        ("lm_adapter", "causal", CLASSIFIER, "the adapter contains no score head"),
        ("lm_adapter", "classifier", "causal", "classifier: has a score head and no language model; the adapter needs"),
        ("lm_adapter", "deeper", "causal", "trained on another base model: only the base model has .*layers.2"),
        ("head_adapter", "wider", CLASSIFIER, r"trained on another base model: only .* of shape \["),
    ],
)
def test_what_does_not_is_refused(zoo, model, base, kind, message):
    """vLLM loads each of these and returns numbers."""
    with pytest.raises(ContractError, match=message):
        check(zoo / model, zoo / base, kind)


def test_a_head_in_a_pickled_checkpoint_is_found(zoo, tmp_path):
    """Older checkpoints are not safetensors."""
    folder = tmp_path / "pickled"
    shutil.copytree(zoo / "classifier", folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    check(folder, folder, CLASSIFIER)
    torch.save({name: w for name, w in weights.items() if name != "score.weight"}, folder / "pytorch_model.bin")
    with pytest.raises(ContractError, match="no score head"):
        check(folder, folder, CLASSIFIER)


def test_an_adapter_that_does_not_name_its_head_must_be_merged(zoo, tmp_path):
    """The published RankLLaMA is one: vLLM would not look for the head in it."""
    old = tiny_models.age_adapter(zoo / "head_adapter", tmp_path / "old")
    with pytest.raises(ContractError, match=r"Merge it \(train merge .*old MERGED\) .* or use --engine transformers"):
        check(old, zoo / "causal", CLASSIFIER)


def test_an_adapter_that_lacks_a_layer_is_refused(zoo, tmp_path):
    """vLLM would use the base's layer unchanged."""
    folder = tmp_path / "torn"
    shutil.copytree(zoo / "lm_adapter", folder)
    weights = load_file(folder / "adapter_model.safetensors")
    kept = {name: w for name, w in weights.items() if "layers.1" not in name}
    save_file(kept, folder / "adapter_model.safetensors")
    with pytest.raises(ContractError, match=r"only the base model has .*layers.1"):
        check(folder, zoo / "causal", "causal")


def test_the_end_of_an_answer_is_the_generation_settings_own(zoo, tmp_path):
    """Or the configuration's, if there are no such settings."""
    folder = tmp_path / "model"
    shutil.copytree(zoo / "causal", folder)
    tiny_models.change_json(folder / "generation_config.json", eos_token_id=[5, 7])
    assert declared_end(folder) == [5, 7]
    (folder / "generation_config.json").unlink()
    tiny_models.change_json(folder / "config.json", eos_token_id=9)
    assert declared_end(folder) == 9


class Platform:
    """A GPU as described by vLLM."""

    device_type = "cuda"
    supported_dtypes = (torch.bfloat16, torch.float16, torch.float32)


@pytest.mark.parametrize(
    ("method", "expected"), [(None, "bfloat16"), ("fp8", "bfloat16"), ("awq", "float16"), ("gptq", "float16")]
)
def test_a_dtype_that_is_not_asked_for_suits_the_kernels(method, expected):
    """Some AWQ and GPTQ kernels support only float16. A requested dtype is left unchanged."""
    found = None if method is None else Quantization(method=method, settings={})
    assert choose_dtype("auto", Platform, quantization=found) == expected
    assert choose_dtype("bfloat16", Platform, quantization=found) == "bfloat16"


def test_an_adapters_layers_are_compared_over_quantized_weights(zoo, tmp_path):
    """The base's layout follows from its settings; no quantization library is needed."""
    base = tmp_path / "awq"
    shutil.copytree(zoo / "causal", base)
    settings = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
    tiny_models.change_json(base / "config.json", quantization_config=settings)
    check(zoo / "lm_adapter", base, "causal")
    with pytest.raises(ContractError, match="trained on another base model"):
        check(zoo / "lm_adapter", zoo / "wider", "causal")

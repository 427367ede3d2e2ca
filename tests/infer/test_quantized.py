"""Quantized checkpoints: dequantized correctly, or rejected in one line before weights are read."""

from __future__ import annotations

import importlib.metadata

import pytest

pytest.importorskip("torch")

import tiny_models
import torch
from quantized_models import (
    CLASSIFIER,
    FP8,
    SAVE,
    block_fp8,
    compressed_tensors,
    engine_scores,
    expert_mxfp4,
    load,
    logits,
    quantize,
    with_settings,
)
from safetensors.torch import save_file

from rankllm_core.errors import ContractError, MissingPackageError, RankLLMError
from rankllm_infer.checkpoints import quantization
from rankllm_infer.checkpoints.model_files import ModelFiles, find_folder, find_model
from rankllm_infer.engines.transformers import quantized
from rankllm_infer.engines.transformers.batches import TransformersSettings
from rankllm_infer.engines.transformers.loading import open_checkpoint
from rankllm_infer.engines.vllm.checks import check_quantization as check_for_vllm


@pytest.fixture
def plain(tmp_path, smollm2_tokenizer):
    """A saved causal model whose config.json a test modifies."""
    tiny_models.save_causal(tmp_path / "m", smollm2_tokenizer)
    return tmp_path / "m"


@pytest.mark.parametrize("kind", SAVE)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fp8_is_dequantized_to_one_dtype(tmp_path, smollm2_tokenizer, kind, dtype):
    """Scores are those of the dequantized values. Heads and norms are stored in bfloat16."""
    model = quantize(tmp_path, SAVE[kind](tmp_path, smollm2_tokenizer), block_fp8, FP8, stored=torch.bfloat16)
    loaded = load(tmp_path, kind, dtype)
    assert {weight.dtype for weight in loaded.model.parameters()} == {loaded.dtype}
    rounding = 1e-5 if dtype == "float32" else 0.1
    if kind == CLASSIFIER:
        assert engine_scores(loaded) == pytest.approx(logits(model).flatten().tolist(), abs=rounding)
    assert torch.allclose(logits(loaded.model), logits(model), atol=rounding)
    assert loaded.notes == (
        f"quantized weights (fp8) are dequantized to {dtype} on loading and use as much memory as unquantized ones; "
        "activations are not quantized. --engine vllm keeps them quantized",
    )


def test_mxfp4_is_dequantized(tmp_path, smollm2_tokenizer):
    """The experts of a tiny gpt-oss, the only weights this format quantizes."""
    from transformers import GptOssConfig, GptOssForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
    model = GptOssForCausalLM(GptOssConfig(vocab_size=49152, initializer_range=0.2, **sizes, **heads))
    model.save_pretrained(tmp_path)
    smollm2_tokenizer.save_pretrained(tmp_path)
    settings = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    quantize(tmp_path, model, expert_mxfp4, settings, only=("experts.gate_up_proj", "experts.down_proj"))
    loaded = load(tmp_path, "causal")
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.float32}
    assert torch.allclose(logits(loaded.model), logits(model), atol=1e-5)


def test_the_notes_reach_the_user(tmp_path, smollm2_tokenizer):
    """As warnings of the loaded checkpoint."""
    quantize(tmp_path, tiny_models.save_causal(tmp_path, smollm2_tokenizer), block_fp8, FP8)
    settings = TransformersSettings(dtype="float32", device="cpu")
    (warning,) = open_checkpoint(find_model(str(tmp_path)), settings, read="text").warnings
    assert warning.startswith("quantized weights (fp8) are dequantized to float32")


@pytest.mark.parametrize("task", ["SEQ_CLS", "CAUSAL_LM"])
def test_an_adapter_is_merged_into_dequantized_weights(tmp_path, smollm2_tokenizer, task):
    """The same scores as the unmerged adapter on the base's dequantized weights."""
    base, meant = tmp_path / "base", tmp_path / "meant"
    model = quantize(base, tiny_models.save_causal(base, smollm2_tokenizer), block_fp8, FP8)
    model.save_pretrained(meant)
    adapted = tiny_models.save_adapter(tmp_path / "adapter", meant, task=task)
    loaded = load(tmp_path / "adapter", "causal" if task == "CAUSAL_LM" else CLASSIFIER, base_model=str(base))
    assert torch.allclose(logits(loaded.model), logits(adapted), atol=1e-5)


@pytest.fixture
def without(monkeypatch):
    """Make packages appear missing."""

    def hide(*names):
        version = importlib.metadata.version

        def hiding(name):
            if name in names:
                raise importlib.metadata.PackageNotFoundError(name)
            return version(name)

        monkeypatch.setattr(quantization.importlib.metadata, "version", hiding)

    return hide


@pytest.mark.parametrize(
    ("settings", "method", "missing"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", ("bitsandbytes",)),
        ({"load_in_8bit": True}, "bitsandbytes", ("bitsandbytes",)),
        ({"quant_method": "awq", "bits": 4}, "awq", ("gptqmodel",)),
        ({"quant_method": "gptq", "bits": 4}, "gptq", ("gptqmodel", "optimum")),
        ({"quant_method": "torchao"}, "torchao", ("torchao",)),
        (compressed_tensors("pack-quantized", kind="int", bits=4), "compressed-tensors", ("compressed-tensors",)),
    ],
)
def test_a_missing_package_is_named_before_weights_are_read(plain, without, settings, method, missing):
    """With the command that installs it. The weights are absent, so they are not needed for the check."""
    without(*missing)
    (plain / "model.safetensors").unlink()
    with pytest.raises(MissingPackageError) as caught:
        load(with_settings(plain, **settings), "causal")
    verb = "is" if len(missing) == 1 else "are"
    assert str(caught.value) == (
        f"{plain}: its weights are quantized ({method}), which needs {' and '.join(missing)}, which {verb} not "
        f"installed. Install it with: uv add {' '.join(missing)}"
    )


def test_vllm_brings_what_weights_need_but_bitsandbytes(plain, without):
    """Before vLLM is started."""
    without("bitsandbytes", "compressed-tensors", "gptqmodel")
    for settings in ({}, {"quant_method": "awq"}, {"quant_method": "compressed-tensors"}):
        model = find_folder(str(with_settings(plain, **settings) if settings else plain))
        check_for_vllm(ModelFiles(own=model, base=model))
    model = find_folder(str(with_settings(plain, quant_method="bitsandbytes")))
    with pytest.raises(
        MissingPackageError, match=r"needs bitsandbytes, which is not installed\. Install it with: uv add"
    ):
        check_for_vllm(ModelFiles(own=model, base=model))


@pytest.mark.parametrize("method", ["modelopt", "exl2", "eetq"])
def test_a_method_that_is_not_loaded_is_refused(plain, method):
    """transformers would ignore some of them and load garbage; others run downloaded code."""
    (plain / "model.safetensors").unlink()
    said = rf"quantized with a method that rankllm does not support with transformers \('{method}'; supported: awq, .*"
    with pytest.raises(ContractError, match=said + r"; use --engine vllm or unquantized weights$"):
        load(with_settings(plain, quant_method=method), "causal")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("int4", r"config\.json: quantization_config: expected an object, found 'int4'$"),
        ({"bits": 4}, r"config\.json: quantization_config\.quant_method: expected the name of a method, found 'None'$"),
        ({"quant_method": ["awq"]}, r"quant_method: expected the name of a method, found"),
    ],
)
def test_damaged_settings_are_named(plain, settings, said):
    """The file and the key."""
    tiny_models.change_json(plain / "config.json", quantization_config=settings)
    with pytest.raises(RankLLMError, match=said):
        load(plain, "causal")


def test_what_transformers_has_against_settings_is_one_line(plain):
    """From its own checks, before weights are read."""
    (plain / "model.safetensors").unlink()
    with pytest.raises(RankLLMError, match=r"its quantized weights \(fp8\) cannot be loaded here \(") as caught:
        load(with_settings(plain, **(FP8 | {"activation_scheme": "none"})), "causal")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["awq", "gptq", "torchao"])
def test_an_adapter_over_weights_that_it_cannot_be_merged_into_is_refused(tmp_path, plain, monkeypatch, method):
    """Before the weights are read."""
    monkeypatch.setattr(quantized, "check_packages", lambda *given: None)
    tiny_models.save_adapter(tmp_path / "adapter", plain, task="CAUSAL_LM")
    with_settings(plain, quant_method=method)
    said = rf"adapter: an adapter cannot be merged into its base .*m, whose weights are quantized \({method}\); "
    with pytest.raises(ContractError, match=said):
        load(tmp_path / "adapter", "causal")


def test_layers_of_several_schemes_are_refused(plain, monkeypatch):
    """transformers would dequantize all with the first scheme; one scheme for several groups counts as one."""
    monkeypatch.setattr(quantized, "check_packages", lambda *given: None)
    monkeypatch.setattr(quantized, "_check_environment", lambda *given: None)
    settings = compressed_tensors("pack-quantized", kind="int", bits=4)
    group = settings["config_groups"]["group_0"]
    other = {**group, "weights": {**group["weights"], "num_bits": 8}}

    def check(groups):
        return quantized.check_quantization(
            find_model(str(with_settings(plain, **(settings | {"config_groups": groups})))), torch.device("cpu")
        )

    assert check({"a": group, "b": {**group, "targets": ["re:.*mlp.*"]}}).method == "compressed-tensors"
    with pytest.raises(ContractError, match=r"use 2 different quantization schemes \(config_groups\)"):
        check({"a": group, "b": other})


def test_a_quantized_score_head_is_refused(tmp_path, smollm2_tokenizer):
    """Its values are used as stored, and four or eight bits would differ from the trained ones."""
    model = tiny_models.save_classifier(tmp_path, smollm2_tokenizer)
    model.score = torch.nn.Sequential(model.score)
    found = quantization.Quantization(method="bitsandbytes", settings={})
    with pytest.raises(ContractError, match=r"its score head is quantized \(Sequential\)"):
        quantized.settle_quantized(model, found, dtype=torch.float32, files=find_model(str(tmp_path)))


@pytest.mark.parametrize(
    ("stored", "expected"),
    [(torch.bfloat16, ["lm_head", "score"]), (torch.int8, ["lm_head"]), (None, ["lm_head", "score"])],
)
def test_a_head_that_is_stored_in_full_is_never_quantized(tmp_path, stored, expected):
    """The file's contents decide, not a list made for a language model."""
    from rankllm_core.checkpoints.weights import read_weight_headers

    tiny_models.save_classifier(tmp_path)
    held = {"model.norm.weight": torch.ones(32)}
    save_file(
        held | ({} if stored is None else {"score.weight": torch.ones(1, 32).to(stored)}),
        tmp_path / "model.safetensors",
    )
    with_settings(tmp_path, quant_method="awq", bits=4, modules_to_not_convert=["lm_head"])
    files = find_model(str(tmp_path))
    options = quantized.quantized_options(
        quantization.quantization_of(files.base),
        files,
        CLASSIFIER,
        options={"dtype": torch.float32, "trust_remote_code": False},
        device=torch.device("cpu"),
        held=read_weight_headers(tmp_path),
    )
    assert options["config"].quantization_config["modules_to_not_convert"] == expected
    assert (options["config"].num_labels, options["device_map"]) == (1, {"": torch.device("cpu")})


def test_awq_on_a_gpu_computes_in_float16(tmp_path, smollm2_tokenizer):
    """For any --dtype, with a warning if one was requested."""
    tiny_models.save_causal(tmp_path, smollm2_tokenizer)
    files = find_model(str(with_settings(tmp_path, quant_method="awq", bits=4)))
    found = quantization.quantization_of(files.base)
    given = {"dtype": torch.bfloat16, "trust_remote_code": False}
    gpu = torch.device("cuda", 0)
    options = quantized.quantized_options(found, files, "causal", options=given, device=gpu, held={})
    assert options["dtype"] == torch.float16
    assert quantized.quantization_notes(found, files, asked="auto", dtype=torch.float16) == ()
    (note,) = quantized.quantization_notes(found, files, asked="bfloat16", dtype=torch.float16)
    assert note == "--dtype bfloat16 has no effect: awq computes in float16"

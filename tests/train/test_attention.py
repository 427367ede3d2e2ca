"""Choice of the attention implementation on machines with and without flash-attention."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

import flash_stub  # noqa: E402
from training_fakes import save_tiny  # noqa: E402

from rankllm_core.errors import ConfigError  # noqa: E402
from rankllm_train.models.attention import loading_attention  # noqa: E402

FLASH = "flash_attention_2"
CASES = {
    "auto, full": {},
    "asked, LoRA": {"lora": True, "attention": FLASH},
    "auto, score head in fp16": {"lora": True, "kind": "sequence-classification", "precision": "fp16"},
    "sdpa, full": {"attention": "sdpa"},
    "sdpa, score head in fp16": {
        "lora": True,
        "kind": "sequence-classification",
        "precision": "fp16",
        "attention": "sdpa",
    },
    "auto, old GPU": {"lora": True, "capability": 7},
    "auto, fp32": {"precision": "fp32"},
    "asked, old GPU": {"attention": FLASH, "capability": 7},
    "asked, fp32": {"attention": FLASH, "precision": "fp32"},
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, smollm2_tokenizer):
    """Return name -> result of loading a model with flash-attn installed and a GPU present."""
    root = tmp_path_factory.mktemp("flash")
    model = save_tiny(root / "tiny", smollm2_tokenizer)
    cases = [
        {
            "model": {
                "name_or_path": model,
                "precision": case.get("precision", "bf16"),
                "attn_implementation": case.get("attention", "auto"),
            },
            "kind": case.get("kind", "causal"),
            "lora": case.get("lora", False),
            "capability": case.get("capability", 9),
        }
        for case in CASES.values()
    ]
    packages = flash_stub.install(root / "packages")
    done = subprocess.run(
        [sys.executable, flash_stub.__file__, json.dumps(cases)],
        env=os.environ | {"PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(CASES, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize(
    ("case", "same_with_torch"),
    [
        ("auto, full", "sdpa, full"),
        ("asked, LoRA", "sdpa, full"),  # adapters begin as nothing
        ("auto, score head in fp16", "sdpa, score head in fp16"),
    ],
)
def test_a_model_is_loaded_and_checked_before_it_uses_flash_attention(loaded, case, same_with_torch):
    """The weights are on the CPU until the trainer moves them, so no kernel is called while loading."""
    found, expected = loaded[case], loaded[same_with_torch]
    assert (found["attention"], found["while_loading"], found["calls"]) == (FLASH, 0, 2)
    assert (expected["attention"], expected["while_loading"], expected["calls"]) == ("sdpa", 0, 0)
    assert found["values"] == pytest.approx(expected["values"], abs=0.02)


@pytest.mark.parametrize("case", ["auto, old GPU", "auto, fp32"])
def test_auto_leaves_flash_attention_to_gpus_and_precisions_that_run_it(loaded, case):
    """Not on compute capability 7 or in float32, for which flash-attention has no kernels."""
    assert loaded[case]["attention"] != FLASH
    assert loaded[case]["calls"] == 0


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("asked, old GPU", "needs a GPU of compute capability 8 or more, found 7.0"),
        ("asked, fp32", "computes in bf16 or fp16, but model.precision is fp32"),
    ],
)
def test_what_was_asked_for_and_cannot_run_is_one_line(loaded, case, message):
    """Before the first step."""
    expected = f"model.attn_implementation: flash_attention_2 {message}; use auto or sdpa"
    assert loaded[case] == {"error": expected}


def test_without_a_gpu_flash_attention_is_refused_before_the_weights_are_loaded():
    """Every other choice is loaded unchanged; `auto` uses torch's attention."""
    with pytest.raises(ConfigError, match="flash_attention_2 needs a CUDA GPU, but none is available"):
        loading_attention(FLASH)
    assert [loading_attention(choice) for choice in ("auto", "sdpa", "eager")] == ["sdpa", "sdpa", "eager"]

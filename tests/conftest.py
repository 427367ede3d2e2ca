"""Fixtures that several folders share. Imports stay inside them: core's tests also run where torch is not installed."""

from __future__ import annotations

import os
import signal

import pytest

# No test asks the hub: an unknown model name must fail at once, not after a timeout.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
# Two OpenMP threads that wait for each other on a busy two-core machine are many times slower than one alone.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def interruptible():
    """Ctrl-C raises KeyboardInterrupt, as in a terminal, whatever runs the tests: jobs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def smollm2_path():
    """The folder of the demo model, unpacked; skips where the package with the weights is not installed."""
    pytest.importorskip("torch")
    demo_model = pytest.importorskip("rankllm_infer.checkpoints.demo_model")
    from rankllm_core.errors import MissingPackageError

    try:
        return demo_model.demo_model_path()
    except MissingPackageError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_path):
    """SmolLM2's tokenizer: byte-level, ChatML, no BOS."""
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(smollm2_path)


@pytest.fixture(scope="session")
def llama2_tokenizer():
    """Llama 2's tokenizer: Metaspace, BOS, no chat template."""
    transformers = pytest.importorskip("transformers")
    from shared_files import tokenizer_dir

    return transformers.AutoTokenizer.from_pretrained(tokenizer_dir("llama2"))


@pytest.fixture(scope="session")
def smollm2_fp32(smollm2_path):
    """SmolLM2 in float32, in which the reference numbers were recorded."""
    from rankllm_infer.checkpoints.model_files import find_model
    from rankllm_infer.engines.transformers.batches import TransformersSettings
    from rankllm_infer.engines.transformers.loading import load_model

    return load_model(find_model(str(smollm2_path)), "causal", TransformersSettings(dtype="float32", device="cpu"))

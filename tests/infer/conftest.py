"""Tiny checkpoints and an in-process command line, for tests of user-visible behaviour."""

from __future__ import annotations

import io
import signal
import sys
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Done:
    """Outcome of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def no_proxy(monkeypatch):
    """Connect to servers on this machine directly, regardless of any proxy in the environment."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def rankllm(no_proxy, monkeypatch, capsys):
    """Run `rankllm-infer ARGUMENTS` in this process, through its own `main`."""
    from rankllm_infer.cli import main

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def run(*arguments, stdin=""):
        monkeypatch.setattr(sys, "argv", ["rankllm-infer", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        handler = signal.getsignal(signal.SIGTERM)
        capsys.readouterr()
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        finally:
            signal.signal(signal.SIGTERM, handler)
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def whole(tmp_path, monkeypatch):
    """Outputs of an undisturbed scripted run."""
    from scripted_runs import contents, rerank

    assert rerank(monkeypatch, tmp_path / "whole") == 0
    return contents(tmp_path / "whole")


@pytest.fixture(scope="session")
def tiny_causal(tmp_path_factory, smollm2_tokenizer):
    """Random two-layer language model with SmolLM2's tokenizer and 2,048 positions."""
    from tiny_models import change_json, save_causal

    folder = tmp_path_factory.mktemp("tiny") / "causal"
    save_causal(folder, smollm2_tokenizer)
    change_json(folder / "config.json", max_position_embeddings=2048)
    return folder


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory, smollm2_tokenizer):
    """Like `tiny_causal`, with a score head instead of the language model's head."""
    from tiny_models import save_classifier

    folder = tmp_path_factory.mktemp("tiny") / "classifier"
    save_classifier(folder, smollm2_tokenizer)
    return folder


@pytest.fixture(scope="session")
def tiny_adapter(tmp_path_factory, tiny_causal):
    """LoRA adapter with a score head for `tiny_causal`, without its own tokenizer."""
    from tiny_models import save_adapter

    folder = tmp_path_factory.mktemp("tiny") / "adapter"
    save_adapter(folder, tiny_causal)
    return folder

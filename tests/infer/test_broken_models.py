"""A broken model gives a one-line error, whatever is broken: no traceback, within seconds, in bounded memory."""

from __future__ import annotations

import re
import resource
import shutil
import time

import pytest

pytest.importorskip("torch")

from broken_models import ADAPTERS, MODELS, damaged
from ranking_server import request, write_jsonl
from tiny_models import save_adapter, save_causal

from rankllm_infer.checkpoints import model_files

HARMLESS = {"a quantization that is unknown"}  # transformers leaves it out, and takes the weights as they are
NO_MATTER_OF_PROMPTS = re.compile(r"weights|header|tensor of|tensor behind|index|rank|modules|layers|width")
"""Not checked by `prompts render`."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory, smollm2_tokenizer):
    """A tiny model and an adapter for it."""
    root = tmp_path_factory.mktemp("sources")
    save_causal(root / "model", smollm2_tokenizer, max_position_embeddings=2048)
    save_adapter(root / "adapter", root / "model", task="CAUSAL_LM")
    return root


@pytest.fixture
def check(rankllm, tmp_path):
    """Run both commands on a folder: one line and exit status 1, or a result and exit status 0 if allowed."""
    requests = write_jsonl(tmp_path / "requests.jsonl", request("q", 0, 1, 2))

    def run(what, folder, *, allowed, renders=True):
        output = tmp_path / "out.trec"
        rerank = ("rerank", "--model-path", folder, "--output", output, "--overwrite", "--dtype", "float32")
        for command in (rerank, ("prompts", "render", "--model-path", folder))[: 1 + renders]:
            model_files._check_once.cache_clear()
            began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            done = rankllm(*command, "--requests", requests)
            assert time.monotonic() - began < 10, what
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20, what  # KiB
            lines = [line for line in done.err.splitlines() if not line.startswith(("Loading ", "Warning: "))]
            if done.code == 1:
                assert len(lines) == 1, (what, done.err)
                assert lines[0].startswith("Error: "), what
                assert len(lines[0]) < 700, (what, lines[0])
            else:
                # What `prompts render` does not read cannot stop it.
                assert done.code in ((0, 3) if allowed or command is not rerank else (1,)), (what, done.err)

    return run


@pytest.mark.parametrize("name", MODELS)
def test_a_broken_model_is_one_line(sources, tmp_path, check, name):
    """Weights, configuration and tokenizer."""
    folder = tmp_path / "model"
    shutil.copytree(sources / "model", folder)
    MODELS[name](folder)
    check(name, folder, allowed=name in HARMLESS, renders=not NO_MATTER_OF_PROMPTS.search(name))
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_broken_adapter_is_one_line(sources, tmp_path, check, name):
    """Weights and settings."""
    folder = tmp_path / "adapter"
    shutil.copytree(sources / "adapter", folder)
    ADAPTERS[name](folder)
    check(name, folder, allowed=name in HARMLESS, renders=not NO_MATTER_OF_PROMPTS.search(name))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_a_folder_damaged_at_random_places_is_one_line_or_still_works(sources, tmp_path, check, kind):
    """Each file truncated and with flipped bits, seeded. A flipped bit in a weight is undetectable and changes the
    ranking."""
    for what, folder in damaged(sources / kind, tmp_path / "damaged", seed=17, each=2):
        check(what, folder, allowed=True)

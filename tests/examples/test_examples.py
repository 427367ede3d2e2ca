"""The scripts of examples/ run as their first lines say, offline, and print what they promise."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
from shared_files import REPOSITORY

EXAMPLES = REPOSITORY / "examples"

pytestmark = pytest.mark.slow


def run(folder, script, *arguments):
    """What a script prints, started in a folder of its own with the programs of this environment on PATH."""
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": paths, "NO_PROXY": "127.0.0.1"}
    words = [sys.executable] if script.endswith(".py") else ["bash"]
    words += [str(EXAMPLES / script), *map(str, arguments)]
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_has_a_test():
    """Four of them."""
    source = Path(__file__).read_text(encoding="utf-8")
    scripts = [path.name for path in EXAMPLES.iterdir() if path.suffix in {".py", ".sh"}]
    assert len(scripts) == 4
    assert [name for name in scripts if f'"{name}"' not in source] == []


def test_passages_are_ranked(tmp_path, smollm2_path):
    """The passage that answers is first, and each is there once."""
    lines = run(tmp_path, "rank_passages.py").splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert "passage 2: Air scatters" in lines[0]
    assert sorted(line.split("passage ")[1][0] for line in lines) == ["0", "1", "2"]


def test_a_run_is_reranked_and_evaluated(tmp_path, smollm2_path):
    """Both runs hold the same passages, and both have a figure."""
    printed = run(tmp_path, "rerank_run.sh", "out", "smollm2-pointwise", 1)
    before, after = (
        sorted(line.split()[:3:2] for line in (tmp_path / "out" / name).read_text(encoding="utf-8").splitlines())
        for name in ("bm25.trec", "reranked.trec")
    )
    assert before == after
    assert len(before) == 20
    values = dict(re.findall(r"^out/(\S+)\tnDCG@10\t([\d.]+)$", printed, re.MULTILINE))
    assert values.keys() == {"bm25.trec", "reranked.trec"}


def test_a_server_is_started_and_called(tmp_path, smollm2_path):
    """The answer first, by a score between 0 and 1; the server is gone afterwards."""
    first, second = run(tmp_path, "serve_and_call.py").splitlines()
    assert "the sky looks blue" in first
    assert 1 >= float(first.split()[0]) > float(second.split()[0]) >= 0


def test_a_model_is_trained_and_used(tmp_path, smollm2_tokenizer):
    """On a tiny random model: two steps, an adapter with its card, and a ranking by it."""
    tiny_models.save_causal(tmp_path / "tiny", smollm2_tokenizer)
    printed = run(tmp_path, "finetune_pointwise.py", "--model", "tiny", "--steps", 2, "--output-dir", "trained")
    assert re.search(r"^trained for 2 steps, mean loss \d\.\d{3}$", printed, re.MULTILINE)
    assert {"adapter_config.json", "rankllm.yaml"} <= {path.name for path in (tmp_path / "trained").iterdir()}
    assert len(re.findall(r"^ +-?\d+\.\d{3}  \w", printed, re.MULTILINE)) == 3

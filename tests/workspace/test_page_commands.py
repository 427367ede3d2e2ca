"""The commands of the README and the tutorial do what the pages say: each is run, in order, in a folder with data.

Not run are those that need a GPU, a network or hours; NOT_RUN says which and why. Models of billions of parameters have
a stand-in. A command runs in this process where it is one of ours, so that torch is loaded once.
"""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
from page_blocks import blocks
from shared_files import REPOSITORY

from rankllm_infer.cli import main as infer
from rankllm_train.cli import main as train

PROGRAMS = {"rankllm-infer": infer, "train": train, "rankllm-train": train}
PAGES = ("README.md", "docs/tutorial.md")
NOT_RUN = {
    r"^(uv|pip|git|source) |pip install": "sets an environment up; .ci/run and scripts/test-release do, from wheels",
    r"^uv run .*(pytest|rankllm-infer demo)": "a step of .ci/run",
    r"scripts/(models|bench)/": "hours of measuring",
    r"rankllm-infer serve ": "runs until it is stopped; tests/examples starts it",
}
"""Commands that are not run: pattern and reason."""
STAND_INS = {
    r"castorini/\S+": ("smollm2-pointwise", "weights of 7B parameters, on a hub"),
    r"HuggingFaceTB/\S+": ("tiny", "weights on a hub"),
    r"--recipe (smollm2-\S+)": (r"--recipe \1 --model-name-or-path tiny --max-steps 1", "a minute of training"),
    r"--depth 20": ("--depth 4", "time"),
}
"""What takes the place of a part of a command: pattern, stand-in and reason."""
N_QUERIES = 2
"""Queries of the demo collection that the README's data files hold."""

pytestmark = pytest.mark.slow


def commands(page: str) -> list[str]:
    """The commands of a page's bash blocks, comments and continuations resolved."""
    lines = []
    for block in blocks(REPOSITORY / page):
        if block.language == "bash":
            joined = re.sub(r"(\\|\|)\n\s*", lambda found: "| " if found[1] == "|" else " ", block.body)
            lines += [re.sub(r"\s+#\s.*$", "", line).strip() for line in joined.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def is_run(command: str) -> bool:
    return not any(re.search(pattern, command) for pattern in NOT_RUN)


def with_stand_ins(command: str) -> str:
    for pattern, (stand_in, _) in STAND_INS.items():
        command = re.sub(pattern, stand_in, command)
    return command


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command; a pipe's left side and what is none of our programs run in bash."""

    def run_ours(words, stdin):
        monkeypatch.setattr(sys, "argv", words)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        code: object = 0
        try:
            PROGRAMS[words[0]]()
        except SystemExit as done:
            code = done.code
        captured = capsys.readouterr()
        assert code in (None, 0), f"{shlex.join(words)}\n{captured.err}"
        return captured.out

    def run_command(command):
        before, pipe, ours = command.rpartition(" | ")
        words = shlex.split(ours)
        target = words[words.index(">") + 1] if ">" in words else None
        if words[0] not in PROGRAMS:
            return bash(command)
        out = run_ours(words[: words.index(">")] if target else words, bash(before) if pipe else "")
        if target:
            Path(target).write_text(out, encoding="utf-8")
        return out

    return run_command


def bash(command: str) -> str:
    words = ["bash", "-euo", "pipefail", "-c", command]
    done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def readme_data(tmp_path, monkeypatch, smollm2_tokenizer):
    """The files that the pages' commands read, from the demo collection: two queries and thirty passages."""
    demo = REPOSITORY / "packages/rankllm-infer/src/rankllm_infer/demo_data"
    queries = (demo / "queries.tsv").read_text(encoding="utf-8").splitlines()[:N_QUERIES]
    wanted = {line.split("\t")[0] for line in queries}
    judged = [
        line for line in (demo / "qrels.txt").read_text(encoding="utf-8").splitlines() if line.split()[0] in wanted
    ]
    docids = {line.split()[2] for line in judged}
    passages = (demo / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    files = {
        "queries.tsv": queries,
        "qrels.txt": judged,
        "corpus.jsonl": [line for line in passages if re.search(r'"(d\d+)"', line)[1] in docids],
    }
    for name, lines in files.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    tiny_models.save_causal(tmp_path / "tiny", smollm2_tokenizer)
    (tmp_path / "packages").symlink_to(REPOSITORY / "packages")
    (tmp_path / "scripts").symlink_to(REPOSITORY / "scripts")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_reason_applies():
    """A pattern that fits no command is out of date."""
    everything = [command for page in PAGES for command in commands(page)]
    patterns = [*NOT_RUN, *STAND_INS]
    assert [pattern for pattern in patterns if not any(re.search(pattern, command) for command in everything)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_command_runs(page, run, readme_data):
    """In the order of the page, each from what those before it wrote."""
    runnable = [with_stand_ins(command) for command in commands(page) if is_run(command)]
    assert len(runnable) >= 3
    for command in runnable:
        run(command)

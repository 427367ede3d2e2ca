"""`--help` is fast: no program or subcommand imports a heavy package for it."""

from __future__ import annotations

import re
import subprocess
import sys

import click
import pytest

from rankllm_infer.cli import cli as infer
from rankllm_train.cli import cli as train

HEAVY = {
    "accelerate",
    "bm25s",
    "datasets",
    "deepspeed",
    "gguf",
    "httpx",
    "httpx2",
    "huggingface_hub",
    "mcp",
    "mcp_types",
    "numpy",
    "pandas",
    "peft",
    "pyarrow",
    "pydantic",
    "pyserini",
    "pytrec_eval",
    "prometheus_client",
    "safetensors",
    "scipy",
    "starlette",
    "tokenizers",
    "torch",
    "transformers",
    "uvicorn",
    "vllm",
}


def programs(command: click.Command, *words: str) -> list[tuple[str, ...]]:
    """A command and all its subcommands, as the words that call them."""
    found = [words]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None, name
            found += programs(below, *words, name)
    return found


PROGRAMS = [*programs(infer, "rankllm_infer"), *programs(train, "rankllm_train")]


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False)


def imported_packages(importtime: str) -> set[str]:
    """The top-level packages in a report of `python -X importtime`."""
    names = re.findall(r"^import time:.*\|\s*([\w.]+)$", importtime, flags=re.MULTILINE)
    return {name.partition(".")[0] for name in names}


def test_the_report_of_imports_shows_a_heavy_package():
    """The tests below would detect a heavy package."""
    assert "numpy" in imported_packages(run_python("-X", "importtime", "-c", "import numpy").stderr)


@pytest.mark.parametrize("words", PROGRAMS, ids=" ".join)
def test_help_needs_no_heavy_package(words):
    """Help is printed without importing torch, transformers or numpy."""
    done = run_python("-X", "importtime", "-m", *words, "--help")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("Usage: ")
    assert not imported_packages(done.stderr) & HEAVY


@pytest.mark.parametrize("words", PROGRAMS, ids=" ".join)
def test_help_describes_the_program(words):
    """Every command has a one-sentence description, and argument names are in kebab-case."""
    text = run_python("-m", *words, "--help").stdout
    assert re.search(r"^  [A-Z][^\n]+", text, flags=re.MULTILINE)
    assert not re.findall(r"--\w*_\w*", text)

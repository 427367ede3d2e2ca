"""`rankllm-infer doctor`: what it says about this machine, and about others."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib import metadata

import pytest
from click.testing import CliRunner

from rankllm_infer.cli import cli
from rankllm_infer.diagnosis import AutoChoice, DemoModelState, Device, Diagnosis, EngineState, examine


@pytest.fixture
def other_machine():
    """What `examine` finds on a machine with a GPU and without httpx2."""
    gpu = Device(device="cuda:0", name="NVIDIA H100", memory_gib=79.2, free_gib=78.0, fast_bfloat16=True)
    cpu = Device(device="cpu", name="x86_64", threads=16, capability="AVX2", fast_bfloat16=False)
    missing = "needs httpx2; install it with: uv add 'rankllm-infer[openai]'"
    return Diagnosis(
        python="3.12.1",
        platform="Linux x86_64",
        packages={"torch": "2.9.0", "httpx2": None},
        engines={"transformers": EngineState(works=True, note=""), "openai": EngineState(works=False, note=missing)},
        devices=(gpu, cpu),
        auto=AutoChoice(device="cuda", dtype="bfloat16"),
        problem=None,
        demo_model=DemoModelState(name="Small", cache="/cache", unpacked=False, installed=True),
    )


def test_the_report_goes_to_standard_output():
    """Versions are those installed, and every engine and device has a line."""
    result = CliRunner().invoke(cli, ["doctor"], standalone_mode=False)
    assert result.exception is None
    rows = dict(line.strip().split(None, 1) for line in result.stdout.splitlines() if line.startswith("  "))
    assert rows["torch"] == metadata.version("torch")
    assert rows["transformers"] == "works"
    assert {"cpu", "auto", "openai", "vllm"} <= set(rows)
    assert result.stderr == ""


def test_json_tells_the_same(monkeypatch, tmp_path):
    """One object; the demo model is looked for where RANKLLM_CACHE says, and nothing is made there."""
    monkeypatch.setenv("RANKLLM_CACHE", str(tmp_path / "cache"))
    result = CliRunner().invoke(cli, ["doctor", "--json"], standalone_mode=False)
    found = json.loads(result.stdout)
    assert found["packages"]["torch"] == metadata.version("torch")
    assert found["devices"][-1]["device"] == "cpu"
    assert found["devices"][-1]["threads"] >= 1
    assert found["auto"]["dtype"] in ("float32", "bfloat16", "float16")
    assert found["demo_model"]["cache"] == str(tmp_path / "cache")
    assert found["demo_model"]["unpacked"] is False
    assert list(tmp_path.iterdir()) == []


def test_an_installed_vllm_is_told_without_importing_it(monkeypatch, tmp_path):
    """vLLM takes long to import and may grab the GPU: its version comes from its metadata."""
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    (tmp_path / "vllm-99.1.dist-info").mkdir()
    (tmp_path / "vllm-99.1.dist-info" / "METADATA").write_text("Name: vllm\nVersion: 99.1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert examine().packages["vllm"] == "99.1"
    assert "vllm" not in sys.modules


def test_another_machine_is_described(other_machine):
    """GPUs with their memory, what `auto` means, and the exact command for an engine that is missing."""
    lines = [" ".join(line.split()) for line in other_machine.lines()]
    assert "cuda:0 NVIDIA H100, 79.2 GiB, 78.0 free, bfloat16 in hardware" in lines
    assert "cpu x86_64, 16 threads, AVX2, no fast bfloat16" in lines
    assert "auto selects cuda, and --dtype auto selects bfloat16" in lines
    assert "openai needs httpx2; install it with: uv add 'rankllm-infer[openai]'" in lines
    assert "httpx2 not installed; uv add 'rankllm-infer[openai]'" in lines
    assert "Small installed, unpacked on first use" in lines


def test_in_a_clone_the_advice_is_one_that_works_there(other_machine):
    """`uv add` has no project of the user's to add to: the extra is synced."""
    lines = [" ".join(line.split()) for line in replace(other_machine, is_clone=True).lines()]
    command = "uv sync --inexact --package rankllm-infer --extra openai"
    assert f"openai needs httpx2; install it with: {command}" in lines
    assert f"httpx2 not installed; {command}" in lines
    assert examine().is_clone


def test_a_torch_that_cannot_be_imported_is_a_finding_not_a_crash(tmp_path):
    """A torch built for another machine raises when it is imported: the reason is told, with the way out."""
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.12: not found\\nmore')", encoding="utf-8")
    code = "from rankllm_infer.cli import main; main()"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    def doctor(*arguments):
        command = [sys.executable, "-c", code, "doctor", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    found = json.loads(doctor("--json"))
    assert found["problem"].startswith("torch cannot be imported (libcudart.so.12: not found); reinstall it: ")
    assert found["engines"]["transformers"] == {"works": False, "note": found["problem"]}
    assert (found["devices"], found["auto"]) == ([], None)
    assert any(found["problem"] in line for line in doctor().splitlines())

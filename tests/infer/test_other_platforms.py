"""The command line uses no POSIX-only module, function or flag."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest
from chat_server import serving
from ranking_server import request, respond, write_jsonl

PACKAGES = ("rankllm_core", "rankllm_infer", "rankllm_train")
POSIX_MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix", "crypt", "spwd")
POSIX_NAMES = {"O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_DIRECTORY", "pwrite", "pread", "fork", "getuid", "geteuid"}
POSIX_NAMES |= {
    "sched_getaffinity",
    "mkfifo",
    "fchmod",
    "fchown",
    "chown",
    "getloadavg",
    "sysconf",
    "killpg",
    "statvfs",
}
WITHOUT_POSIX = f"""
import os, sys
for name in {[name for name in POSIX_MODULES if name != "posix"]}:
    sys.modules[name] = None
for name in {sorted(POSIX_NAMES - {"O_NONBLOCK", "fork"})}:
    if hasattr(os, name):
        delattr(os, name)
"""
"""Removes what Windows lacks, as far as Python's standard library works without it here."""


def sources():
    """Every source file of the installed packages."""
    found = [util.find_spec(name) for name in PACKAGES]
    folders = [Path(spec.origin).parent for spec in found if spec is not None and spec.origin]
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def needs_posix(path):
    """POSIX-only imports and calls in a file; those within `try` or through getattr are allowed."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {id(node) for tried in ast.walk(tree) if isinstance(tried, ast.Try) for node in ast.walk(tried)}
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in POSIX_MODULES)
        if isinstance(node, ast.ImportFrom) and node.module in POSIX_MODULES:
            yield node.module
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            yield from {node.attr} & POSIX_NAMES


def test_no_module_needs_what_only_posix_has():
    """Locks use filelock; other features are checked before use."""
    assert len(sources()) > 100
    assert {str(path): found for path in sources() if (found := list(needs_posix(path)))} == {}


def run_without_posix(*arguments):
    """The command line in a process that lacks what Windows lacks."""
    argv = ["rankllm-infer", *map(str, arguments)]
    program = f"{WITHOUT_POSIX}\nsys.argv = {argv!r}\nfrom rankllm_infer.cli import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"NO_PROXY": "127.0.0.1"},
        timeout=100,
        check=False,
    )


def test_help_starts_without_posix():
    """For the program and for the command with a journal."""
    for words in (["--help"], ["rerank", "--help"]):
        done = run_without_posix(*words)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_run_and_its_journal_work_without_posix(tmp_path):
    """Started, partly failed and resumed; if locking is unavailable, a warning says so."""
    requests = write_jsonl(tmp_path / "requests.jsonl", request("q1", 1, 2, 3), request("q2", 2, 1))
    with serving(respond) as server:
        model = ["--engine", "openai", "--base-url", server.base_url, "--model-path", "oracle"]
        done = run_without_posix("rerank", *model, "--requests", requests, "--output", tmp_path / "out.trec")
    assert done.returncode == 0, done.stderr
    assert (
        f"Warning: {tmp_path}: this file system has no locks; do not start a second run on this output\n" in done.stderr
    )
    assert (tmp_path / "out.trec").read_text(encoding="utf-8").startswith("q1 Q0 d3 1 ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.trec", "requests.jsonl"]


@pytest.mark.parametrize(
    "source", ["import fcntl", "from resource import getrusage", "import os\nos.pwrite(1, b'', 0)"]
)
def test_what_needs_posix_is_seen(tmp_path, source):
    """The check detects it."""
    path = tmp_path / "module.py"
    path.write_text(source, encoding="utf-8")
    assert list(needs_posix(path))

"""What may and may not be in the repository, checked in the files that git tracks."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from shared_files import REPOSITORY

MAX_BYTES = 5_000_000
SHIPPED_MODELS = "packages/rankllm-infer/src/rankllm_infer/models/"
MAX_ADAPTER_BYTES = 20_000_000
# Written so that this file does not hold what it looks for.
MACHINE_PATH = re.compile(r"(?<![\w./:-])/(?:" + "|".join(["root", "work", "Users", "home/[a-z]+"]) + ")/")
INDEX_HOST = re.compile(r"\.".join(["pypi", "org"]) + "|" + r"\.".join(["pythonhosted", "org"]))


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """The files that git tracks, as they are in the working tree."""
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("needs a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True
    )
    paths = [REPOSITORY / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def occurrences(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    """FILE:LINE of every line that matches the pattern; binary files are skipped."""
    found = []
    for path in paths:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        found += [f"{name(path)}:{number}" for number, line in enumerate(lines, start=1) if pattern.search(line)]
    return found


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("cd /" + "root/project", True),
        ("open('/" + "work/data')", True),
        ("see docs/work/page.md and http://host/work/x", False),
        ("/tmp/root/x", False),
    ],
)
def test_a_path_of_a_machine_is_told_from_other_paths(line, is_found):
    """The next test relies on this."""
    assert bool(MACHINE_PATH.search(line)) is is_found


def test_no_file_names_a_path_of_somebodys_machine(tracked):
    """Such a path works on one machine only."""
    assert not occurrences(MACHINE_PATH, tracked)


def test_no_file_names_the_host_of_a_package_index(tracked):
    """Users choose their index; only the lock file, written by uv, must name it."""
    assert not occurrences(INDEX_HOST, [path for path in tracked if name(path) != "uv.lock"])


def test_no_file_is_large(tracked):
    """Cloning is fast: no weights except the two bundled adapters, and no collections."""
    for path in tracked:
        is_adapter = name(path).startswith(SHIPPED_MODELS) and path.suffix == ".safetensors"
        limit = MAX_ADAPTER_BYTES if is_adapter else MAX_BYTES
        assert path.stat().st_size <= limit, f"{name(path)}: {path.stat().st_size:,} bytes"


def test_scripts_can_be_run(tracked):
    """Files with a shebang are executable, and bash scripts stop at the first error."""
    scripts = {path: path.read_text(encoding="utf-8", errors="replace") for path in tracked}
    scripts = {path: text for path, text in scripts.items() if text.startswith("#!")}
    assert {".ci/run", "scripts/check", "scripts/test"} <= {name(path) for path in scripts}
    for path, text in scripts.items():
        assert path.stat().st_mode & 0o111, name(path)
        assert "bash" not in text.splitlines()[0] or "\nset -euo pipefail\n" in text, name(path)


def test_patterns_mean_the_same_on_every_python_that_is_supported(tracked):
    """No possessive or atomic groups: Python before 3.11.5 does not backtrack if one fails midway (gh-106052). A
    possessive quantifier on a single character or set is not affected.
    """
    sources = [path for path in tracked if path.suffix == ".py" and "/src/" in name(path)]
    assert not occurrences(re.compile(r"\)(?:[?*+]|\{[\d,]+\})\+|\(\?>"), sources)

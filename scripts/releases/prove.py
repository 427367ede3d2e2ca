"""Releases, from `scripts/release` to a ranked list, against a package index on loopback (pypiserver).

It works on a copy of this checkout. Other packages come from the index that the machine uses, in the lock's versions.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_index import LocalIndex, serve_index
from packaging.version import Version

from packages import FOLDERS, current_version, tag_of

ROOT = Path(__file__).resolve().parents[2]
CHANGED = "rankllm-infer"
"""The package that gets a second release."""
RERANK = ["rerank", "--model-path", "smollm2-pointwise", "--query", "why is the sky blue", "--passages", "-"]
ANSWER = "Rayleigh scattering makes the sky blue."
PASSAGES = f"Cats sleep most of the day.\n{ANSWER}\n"
MAX_INSTALLS = 3
"""Maximum number of packages the program may ask for before it ranks."""


def check(is_true: bool, claim: str) -> None:
    """Stop if a claim does not hold."""
    if not is_true:
        sys.exit(f"FAILED: {claim}")
    print(f"  ok: {claim}", flush=True)


def run(words: list[str], folder: Path, *, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command and capture its output as text, whatever its exit status."""
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    return subprocess.run(words, cwd=folder, input=stdin, env=environment, capture_output=True, text=True, check=False)


def run_well(words: list[str], folder: Path) -> str:
    """Return a command's output, or stop if it fails."""
    done = run(words, folder)
    if done.returncode != 0:
        sys.exit(f"FAILED: {shlex.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def timed(title: str) -> Iterator[None]:
    """Print a heading, and the duration after the block."""
    began = time.monotonic()
    print(title, flush=True)
    yield
    print(f"  {time.monotonic() - began:.1f} s", flush=True)


def copy_checkout(target: Path) -> None:
    """Commit all tracked and unignored files as the first commit of a new repository."""
    listed = run_well(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    for key, value in {"user.name": "release test", "user.email": "", "commit.gpgsign": "false"}.items():
        if key == "user.name":
            run_well(["git", "init", "--quiet"], target)
        run_well(["git", "config", key, value], target)
    commit(target, "Copy")


def commit(repository: Path, message: str) -> None:
    run_well(["git", "add", "--all"], repository)
    run_well(["git", "commit", "--quiet", "--message", message], repository)


def add_changelog_heading(repository: Path, release: str) -> None:
    """Edit the changelog as a maintainer does before `scripts/release`."""
    file = repository / "CHANGELOG.md"
    before, mark, after = file.read_text(encoding="utf-8").partition("## [Unreleased]")
    file.write_text(f"{before}## [Unreleased]\n\n## [{release}] - 2026-12-01\n\n{mark}{after}", encoding="utf-8")
    commit(repository, f"Changes of {release}")


def publish(repository: Path, name: str, version: str, index: LocalIndex) -> None:
    """Run the steps of the workflow: tag, check the tag, build the package and upload it."""
    add_changelog_heading(repository, f"{name} {version}")
    said = run_well(["scripts/release", name, version], repository)
    check(f"git push origin HEAD {tag_of(name, version)}" in said, f"scripts/release {name} {version} tags it")
    named = run_well(
        [sys.executable, "scripts/releases/release.py", "--tag", tag_of(name, version)], repository
    ).strip()
    run_well(["uv", "lock", "--check"], repository)
    dist = repository / "dist" / tag_of(name, version)
    run_well(["uv", "build", "--quiet", "--package", named, "--out-dir", str(dist)], repository)
    files = sorted(str(path) for path in dist.iterdir() if path.suffix in {".whl", ".gz"})
    check(len(files) == 2, f"a wheel and a source archive of {name} alone")
    run_well(["uv", "publish", "--quiet", "--publish-url", index.url, "-u", "any", "-p", "any", *files], repository)


def install(environment: Path, index: LocalIndex, constraints: Path) -> None:
    """Install rankllm-infer by name, with its dependencies, into an empty environment."""
    words = ["uv", "export", "--quiet", "--locked", "--package", CHANGED, "--no-dev", "--no-hashes"]
    run_well([*words, "--no-emit-workspace", "--output-file", str(constraints)], ROOT)
    run_well(["uv", "venv", "--quiet", str(environment)], constraints.parent)
    chosen = ["--python", str(environment), "--index", f"{index.url}simple/", "--constraint", str(constraints)]
    run_well(["uv", "pip", "install", "--quiet", *chosen, CHANGED], constraints.parent)


def installs_named_in(message: str) -> list[list[str]]:
    """The arguments of each `pip install` that a message tells the user to run."""
    return [shlex.split(found) for found in re.findall(r"pip install ([^;&`\n]+)", message)]


def rank(environment: Path, folder: Path) -> str:
    """Return the output of `rerank` after installing every package it asks for, following only its messages."""
    program = str(environment / "bin" / "rankllm-infer")
    for _ in range(MAX_INSTALLS):
        done = run([program, *RERANK], folder, stdin=PASSAGES)
        if done.returncode == 0:
            return done.stdout
        wanted = installs_named_in(done.stderr)
        check(bool(wanted), f"the program says what to install: {done.stderr.strip()[-300:]}")
        for packages in wanted:
            run_well(["uv", "pip", "install", "--quiet", "--python", str(environment), *packages], folder)
    sys.exit(f"FAILED: still not ranking after {MAX_INSTALLS} installs: {done.stderr}")


def prove(folder: Path) -> None:
    """Check every claim in order."""
    repository, environment = folder / "checkout", folder / "environment"
    with timed("A copy of the checkout"):
        copy_checkout(repository)
    with serve_index(folder / "index") as index:
        for name in FOLDERS:
            with timed(f"Publish {name}"):
                publish(repository, name, current_version(repository, name), index)
        before = index.files()
        check(len(before) == 2 * len(FOLDERS), "the index holds the three packages")
        version = Version(current_version(repository, CHANGED))
        following = f"{version.major}.{version.minor + 1}.0"
        with timed(f"Publish {CHANGED} {following} alone"):
            publish(repository, CHANGED, following, index)
        after = index.files()
        check(before.items() <= after.items(), "what was published before is unchanged")
        new = sorted(after.keys() - before.keys())
        check(len(new) == 2 and all(following in name for name in new), f"new on the index: {', '.join(new)}")
        with timed(f"Install {CHANGED} from the index in an empty environment"):
            install(environment, index, folder / "constraints.txt")
    said = run_well([str(environment / "bin" / "rankllm-infer"), "--version"], folder)
    check(following in said, f"the new release is installed: {said.strip()}")
    with timed("Rank with a bundled model, following what the program prints"):
        ranked = rank(environment, folder)
    first = next(line for line in ranked.splitlines() if "Cats" in line or "Rayleigh" in line)
    check(ANSWER in first, "the passage that answers is first")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        prove(Path(temporary))

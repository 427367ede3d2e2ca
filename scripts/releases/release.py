"""Prepare the release of one package: set its version, commit, tag. Nothing is pushed and nothing is published.

Usage: scripts/release NAME VERSION
       python scripts/releases/release.py --tag TAG    check that TAG publishes what this checkout holds; print the name
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from packages import (
    FOLDERS,
    ReleaseError,
    current_version,
    init_file,
    package_of,
    project_table,
    settings_file,
    tag_of,
)

USAGE = "usage: scripts/release NAME VERSION, for example: scripts/release rankllm-infer 0.2.0"
CHANGELOG = "CHANGELOG.md"


def git(root: Path, *words: str) -> str:
    """Return the output of git. Raises ReleaseError if it fails."""
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReleaseError(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


def check_version(root: Path, name: str, version: str) -> None:
    """Return the normalized version. It must not be below the current one; an equal one is the first release."""
    if name not in FOLDERS:
        raise ReleaseError(f"{name!r}: no such package; expected one of {', '.join(FOLDERS)}")
    try:
        wanted = Version(version)
    except InvalidVersion:
        raise ReleaseError(f"version {version!r}: expected a version such as 0.2.0 or 0.2.0rc1") from None
    if str(wanted) != version:
        raise ReleaseError(f"version {version!r}: write it in its normal form, {wanted}")
    current = current_version(root, name)
    if wanted < Version(current):
        raise ReleaseError(f"version {version}: {name} is at {current} already; give a later one")


def check_core_ranges(root: Path, version: str) -> None:
    """Check that both programs accept the new core; otherwise an update would install the old one."""
    for name in ("rankllm-infer", "rankllm-train"):
        needs = [Requirement(str(line)) for line in project_table(root, name)["dependencies"]]  # type: ignore[attr-defined]
        (core,) = [need.specifier for need in needs if need.name == "rankllm-core"]
        if not core.contains(version, prereleases=True):
            file = settings_file(root, name).relative_to(root)
            raise ReleaseError(f"{file}: rankllm-core{core} excludes {version}; widen the range first")


def check_changelog(root: Path, name: str, version: str) -> None:
    """Raise ReleaseError unless a heading names package, version and date."""
    text = (root / CHANGELOG).read_text(encoding="utf-8")
    if not re.search(
        rf"^## \[[^]\n]*\b{re.escape(f'{name} {version}')}(?=[],])[^\n]*\d{{4}}-\d\d-\d\d$", text, re.MULTILINE
    ):
        raise ReleaseError(
            f"{CHANGELOG}: no heading '## [{name} {version}] - YYYY-MM-DD'; "
            "move the changes of this release from 'Unreleased' under one, and commit that first"
        )


def check_tree(root: Path, name: str, version: str) -> None:
    """Raise ReleaseError if there are uncommitted changes or the tag exists."""
    if changed := git(root, "status", "--porcelain"):
        raise ReleaseError(f"uncommitted changes, such as {changed.splitlines()[0]!r}; commit or stash them first")
    if git(root, "tag", "--list", tag_of(name, version)):
        raise ReleaseError(
            f"tag {tag_of(name, version)} exists; a published version cannot be replaced: give a later one"
        )


def replace_once(file: Path, pattern: str, replacement: str) -> None:
    """Replace the only match. Raises ReleaseError if there is none or more than one."""
    text, n_found = re.subn(pattern, replacement, file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if n_found != 1:
        raise ReleaseError(f"{file}: expected one match of {pattern!r}, found {n_found}")
    file.write_text(text, encoding="utf-8")


def set_version(root: Path, name: str, version: str) -> None:
    """Write the version to pyproject.toml, `__version__` and the workspace's lock file."""
    replace_once(settings_file(root, name), r'^version = "[^"]+"$', f'version = "{version}"')
    replace_once(init_file(root, name), r'^__version__ = "[^"]+"$', f'__version__ = "{version}"')
    replace_once(root / "uv.lock", rf'(?<=^name = "{name}"\nversion = ")[^"]+(?="$)', version)


def release(root: Path, name: str, version: str) -> str:
    """Make the commit and the tag; return the tag."""
    check_version(root, name, version)
    if name == "rankllm-core":
        check_core_ranges(root, version)
    check_changelog(root, name, version)
    check_tree(root, name, version)
    if version != current_version(root, name):
        set_version(root, name, version)
        git(root, "commit", "--quiet", "--all", "--message", f"Release {name} {version}")
    tag = tag_of(name, version)
    git(root, "tag", "--annotate", tag, "--message", f"{name} {version}")
    return tag


def check_tag(root: Path, tag: str) -> str:
    """Return the package of a tag. Raises ReleaseError if the checkout has another version."""
    name, version = package_of(tag)
    if (current := current_version(root, name)) != version:
        raise ReleaseError(f"tag {tag}: the checkout holds {name} {current}; make tags with scripts/release")
    return name


def main(words: list[str]) -> str:
    """Return the text to print. Raises ReleaseError."""
    root = Path(__file__).resolve().parents[2]
    match words:
        case ["--tag", tag]:
            return check_tag(root, tag)
        case [name, version]:
            tag = release(root, name, version)
            return f"Tagged {tag}. To publish it, push the commit and the tag:\n  git push origin HEAD {tag}"
    raise ReleaseError(USAGE)


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except ReleaseError as error:
        sys.exit(f"Error: {error}")

"""The three packages, the location of their versions, and the tags of releases."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

FOLDERS = {
    "rankllm-core": "shared/rankllm-core",
    "rankllm-infer": "packages/rankllm-infer",
    "rankllm-train": "packages/rankllm-train",
}
"""Folder of each package, in the order of the first release."""


class ReleaseError(Exception):
    """A release cannot proceed; the message is one line."""


def settings_file(root: Path, name: str) -> Path:
    """The package's pyproject.toml."""
    return root / FOLDERS[name] / "pyproject.toml"


def init_file(root: Path, name: str) -> Path:
    """The module with the package's `__version__`."""
    package = name.replace("-", "_")
    return root / FOLDERS[name] / "src" / package / "__init__.py"


def project_table(root: Path, name: str) -> dict[str, object]:
    """The `project` table of the package's pyproject.toml."""
    return dict(tomllib.loads(settings_file(root, name).read_text(encoding="utf-8"))["project"])


def current_version(root: Path, name: str) -> str:
    """The version that the checkout would build."""
    return str(project_table(root, name)["version"])


def tag_of(name: str, version: str) -> str:
    """The tag that publishes a release: NAME-vVERSION."""
    return f"{name}-v{version}"


def package_of(tag: str) -> tuple[str, str]:
    """The package and the version that a tag publishes. Raises ReleaseError for other tags."""
    found = re.fullmatch(r"(?P<name>[a-z-]+)-v(?P<version>\d.*)", tag)
    if found is None or found["name"] not in FOLDERS:
        raise ReleaseError(f"tag {tag!r}: expected NAME-vVERSION, where NAME is one of {', '.join(FOLDERS)}")
    return found["name"], found["version"]

"""Copy the Markdown pages into one folder, with links that work in the site.

The pages are written to be read in the repository: they link to files beside them, to other pages and to sources. In
the site, README.md is the home page and pages of docs/ are at the top; any other file that a page links to is copied.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath

HOME = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
"""Pages from the root of the repository, and their names in the site."""
EXAMPLES_PAGE = "site/examples.md"
_FENCE = re.compile(r"^(```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)
_TARGET = re.compile(r"""(?P<before>\]\(|^\[[^]\n]+\]:\s*|(?:src|href|srcset)=")(?P<target>[^)\s"]+)""", re.MULTILINE)


def staged_name(path: str) -> str | None:
    """Where a file of the repository is in the site, or None where it has no page."""
    if path in HOME:
        return HOME[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if re.fullmatch(r"examples/[\w-]+\.(py|sh)", path):
        name = path.removeprefix("examples/")
        return f"{EXAMPLES_PAGE}#{name.replace('.', '').lower()}"
    if path in {"examples", "examples/README.md"}:
        return EXAMPLES_PAGE
    return None


def rewritten(text: str, change: Callable[[str], str]) -> str:
    """The page with every relative target changed, except in fenced blocks."""
    parts = _FENCE.split(text)
    parts[::2] = [_TARGET.sub(lambda found: found["before"] + change(found["target"]), part) for part in parts[::2]]
    return "".join(parts)


def with_admonitions(text: str) -> str:
    """The page with GitHub's alerts (`> [!NOTE]` and the quoted lines after it) as admonitions of Python-Markdown."""

    def admonition(found: re.Match[str]) -> str:
        lines = [re.sub(r"^> ?", "", line) for line in found["body"].splitlines()]
        return "\n".join([f"!!! {found['kind'].lower()}", "", *(f"    {line}" for line in lines), ""])

    return re.sub(r"^> \[!(?P<kind>[A-Z]+)\]\n(?P<body>(?:>.*\n?)+)", admonition, text, flags=re.MULTILINE)


def stage_page(root: Path, page: str, pages: Path) -> None:
    """Copy one page. Exits where it links to what is not in the repository."""
    here = HOME.get(page) or page.removeprefix("docs/")

    def change(target: str) -> str:
        file, _, anchor = target.partition("#")
        if not file or "://" in target or target.startswith("mailto:"):
            return target
        path = os.path.normpath(PurePosixPath(page).parent / file)
        if path.startswith("..") or not (root / path).exists():
            sys.exit(f"{page}: links to {target}, which is not in the repository")
        there = staged_name(path) or copy_file(root, path, pages)
        there_file, _, there_anchor = there.partition("#")
        relative = os.path.relpath(there_file, PurePosixPath(here).parent)
        anchor = anchor or there_anchor
        return f"{relative}#{anchor}" if anchor else relative

    (pages / here).parent.mkdir(parents=True, exist_ok=True)
    text = rewritten((root / page).read_text(encoding="utf-8"), change)
    (pages / here).write_text(with_admonitions(text), encoding="utf-8")


def copy_file(root: Path, path: str, pages: Path) -> str:
    """A file without a page, as it is; a folder is represented by its README. Returns its name in the site."""
    if (root / path).is_dir():
        path = f"{path}/README.md"
    name = f"files/{path}" if Path(path).suffix not in {"", ".md"} else f"files/{path}.txt"
    (pages / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(root / path, pages / name)
    return name


def stage_pages(root: Path, pages: Path) -> None:
    """Every page of the repository, and the pictures and data beside them."""
    for path in sorted((root / "docs").rglob("*")):
        if path.is_file() and path.suffix != ".md":
            (pages / path.relative_to(root / "docs")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, pages / path.relative_to(root / "docs"))
    for page in [*HOME, *(path.relative_to(root).as_posix() for path in sorted((root / "docs").rglob("*.md")))]:
        stage_page(root, page, pages)

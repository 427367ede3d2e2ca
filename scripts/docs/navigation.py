"""The navigation of the site: sections and pages from nav.toml, and the pages that it does not name."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

Sections = dict[str, list[str]]


def title_of(page: Path) -> str:
    """The page's first heading, without marks."""
    heading = re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return re.sub(r"[`*]", "", heading[1]) if heading else page.stem


def complete_navigation(pages: Path) -> tuple[Sections, list[str]]:
    """The sections, with a last one for the pages that no section names, and these pages."""
    named = tomllib.loads((Path(__file__).parent / "nav.toml").read_text(encoding="utf-8"))["section"]
    sections: Sections = {section["title"]: section["pages"] for section in named}
    listed = [page for names in sections.values() for page in names]
    if missing := [page for page in listed if not (pages / page).exists()]:
        sys.exit(f"scripts/docs/nav.toml: no such pages: {', '.join(missing)}")
    existing = sorted(path.relative_to(pages).as_posix() for path in pages.rglob("*.md"))
    unlisted = [page for page in existing if page not in listed]
    return (sections | {"More": unlisted} if unlisted else sections), unlisted


def navigation_line(sections: Sections, pages: Path) -> str:
    """The navigation as TOML; JSON strings are TOML strings."""
    parts = []
    for title, names in sections.items():
        entries = ", ".join(f"{{{json.dumps(title_of(pages / name))} = {json.dumps(name)}}}" for name in names)
        parts.append(f"{{{json.dumps(title)} = [{entries}]}}")
    return f"nav = [{', '.join(parts)}]"

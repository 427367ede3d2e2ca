"""Every relative link of the built pages leads to a file, and to an element with that id where it names one."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The ids of a page, and what it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids |= {value for key in ("id", "name") if (value := values.get(key))}
        self.targets += [value for key in ("href", "src") if (value := values.get(key))]


def _read(file: Path) -> _Page:
    page = _Page()
    page.feed(file.read_text(encoding="utf-8"))
    return page


def broken_links(site: Path) -> list[str]:
    """PAGE: TARGET for each link within the site that leads nowhere."""
    pages = {file.resolve(): _read(file) for file in sorted(site.rglob("*.html"))}
    broken = []
    for file, page in pages.items():
        if file.name == "404.html":  # served at any depth, so its links are absolute
            continue
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            there = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            there = there / "index.html" if there.is_dir() else there
            anchor = unquote(parts.fragment)
            is_lost = anchor and there in pages and anchor not in pages[there].ids | {"__skip"}
            if not there.exists() or is_lost:
                broken.append(f"{file.relative_to(site.resolve())}: {target}")
    return broken

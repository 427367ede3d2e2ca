"""Build the documentation as a site: stage the pages, run Zensical in strict mode, check every link of the result."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from check_links import broken_links
from generated_pages import write_generated_pages
from navigation import complete_navigation, navigation_line
from staging import stage_pages

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("packages/rankllm-infer/src", "packages/rankllm-train/src", "shared/rankllm-core/src")


def settings(navigation: str) -> str:
    """Zensical's settings, with the navigation and the folders of the sources."""
    text = (Path(__file__).parent / "site.toml").read_text(encoding="utf-8")
    sources = ", ".join(f'"{ROOT / folder}"' for folder in SOURCES)
    return text.replace("[project]\n", f"[project]\n{navigation}\n", 1).replace('"SOURCES"', sources)


def build(folder: Path) -> Path:
    """Build in a temporary folder; return the site's folder in it. Exits where anything is broken."""
    pages = folder / "pages"
    stage_pages(ROOT, pages)
    write_generated_pages(ROOT, pages)
    sections, unlisted = complete_navigation(pages)
    if unlisted:
        print(f"not in scripts/docs/nav.toml, so under 'More': {', '.join(unlisted)}")
    (folder / "zensical.toml").write_text(settings(navigation_line(sections, pages)), encoding="utf-8")
    done = subprocess.run(["zensical", "build", "--strict", "--clean"], cwd=folder, check=False)
    if done.returncode != 0:
        sys.exit("the site was not built: see the messages above; line numbers are those of the pages")
    if broken := broken_links(folder / "site"):
        sys.exit("broken links in the built site:\n" + "\n".join(broken))
    return folder / "site"


def main(target: Path) -> None:
    """Replace the target folder with the new site once that is whole."""
    with tempfile.TemporaryDirectory() as temporary:
        site = build(Path(temporary))
        if target.exists() and not (target / "sitemap.xml").exists() and any(target.iterdir()):
            sys.exit(f"{target}: holds something other than a site; name another folder")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(site, target)
    print(f"{target}: {len(list(target.rglob('*.html')))} pages; open {target / 'index.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

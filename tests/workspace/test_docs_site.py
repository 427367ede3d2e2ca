"""How scripts/build-docs turns pages of the repository into a site. The build itself is a step of .ci/run."""

from __future__ import annotations

import importlib
import sys

import pytest
from shared_files import REPOSITORY


@pytest.fixture
def script(monkeypatch):
    """Imports a module of scripts/docs."""
    monkeypatch.syspath_prepend(REPOSITORY / "scripts" / "docs")
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and "scripts/docs" in (sys.modules[name].__file__ or ""):
            del sys.modules[name]


@pytest.fixture
def repository(tmp_path):
    """A small repository with a page of each kind."""
    root = tmp_path / "repository"
    files = {
        "README.md": "# Home\n\n[a](docs/a.md#b) ![p](docs/p.png) [web](https://x.org/a.md) [l](LICENSE) [h](#home)\n",
        "CONTRIBUTING.md": "[changes](CHANGELOG.md)\n",
        "CHANGELOG.md": "# Changelog\n",
        "SECURITY.md": "[injection](docs/a.md)\n",
        "LICENSE": "Text\n",
        "examples/rank_it.py": "pass\n",
        "docs/p.png": "",
        "docs/a.md": "# A\n\n## B\n\n```text\n[kept](nowhere.md)\n```\n\n[home](../README.md)\n",
        "docs/sub/c.md": "# C\n\n[a](../a.md) [e](../../examples/rank_it.py) [d](../../CONTRIBUTING.md#style)\n"
        '\n<img src="../p.png">\n',
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_links_lead_to_the_pages_of_the_site(script, repository, tmp_path):
    """README becomes the home page and docs/ the top level; examples share one page; code fences stay unchanged."""
    pages = tmp_path / "pages"
    script("staging").stage_pages(repository, pages)
    assert (pages / "index.md").read_text(encoding="utf-8") == (
        "# Home\n\n[a](a.md#b) ![p](p.png) [web](https://x.org/a.md) [l](files/LICENSE.txt) [h](#home)\n"
    )
    assert (pages / "a.md").read_text(encoding="utf-8") == (
        "# A\n\n## B\n\n```text\n[kept](nowhere.md)\n```\n\n[home](index.md)\n"
    )
    assert (pages / "sub/c.md").read_text(encoding="utf-8") == (
        '# C\n\n[a](../a.md) [e](../site/examples.md#rank_itpy) [d](../contributing.md#style)\n\n<img src="../p.png">\n'
    )
    assert (pages / "contributing.md").read_text(encoding="utf-8") == "[changes](changelog.md)\n"
    assert (pages / "files/LICENSE.txt").read_text(encoding="utf-8") == "Text\n"


def test_a_link_to_what_is_not_there_stops_the_build(script, repository, tmp_path):
    """The page and the link are named."""
    (repository / "docs/a.md").write_text("[x](gone.md)\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"docs/a\.md: links to gone\.md, which is not in the repository"):
        script("staging").stage_pages(repository, tmp_path / "pages")


def test_alerts_become_admonitions(script):
    """GitHub's form, with two paragraphs; other quotes stay."""
    text = "Before\n\n> [!NOTE]\n> One **line**.\n>\n> Another.\n\n> A quote.\n"
    assert script("staging").with_admonitions(text) == (
        "Before\n\n!!! note\n\n    One **line**.\n    \n    Another.\n\n> A quote.\n"
    )


def test_every_page_is_in_the_navigation(script, tmp_path, monkeypatch):
    """A page that nav.toml does not name is listed under More; a name without a page stops the build."""
    navigation = script("navigation")
    (tmp_path / "a.md").write_text("# The `a` page\n", encoding="utf-8")
    (tmp_path / "b.md").write_text("# B\n", encoding="utf-8")
    (tmp_path / "nav.toml").write_text('[[section]]\ntitle = "Start"\npages = ["a.md"]\n', encoding="utf-8")
    monkeypatch.setattr(navigation, "__file__", str(tmp_path / "navigation.py"))
    sections, unlisted = navigation.complete_navigation(tmp_path)
    assert (sections, unlisted) == ({"Start": ["a.md"], "More": ["b.md"]}, ["b.md"])
    assert navigation.navigation_line(sections, tmp_path) == (
        'nav = [{"Start" = [{"The a page" = "a.md"}]}, {"More" = [{"B" = "b.md"}]}]'
    )
    (tmp_path / "a.md").unlink()
    with pytest.raises(SystemExit, match=r"nav\.toml: no such pages: a\.md"):
        navigation.complete_navigation(tmp_path)


def test_broken_links_of_the_built_pages_are_found(script, tmp_path):
    """A file, an anchor on the same page and one on another; what is whole and what is on the web is not."""
    (tmp_path / "a.html").write_text(
        '<h1 id="top"></h1><a href="#top"></a><a href="sub/b.html#x">b</a><a href="https://x.org/gone">w</a>'
        '<a href="#gone"></a><img src="p.png"><a href="sub/b.html#y"></a>',
        encoding="utf-8",
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/b.html").write_text('<a name="x" href="../a.html#top"></a>', encoding="utf-8")
    assert script("check_links").broken_links(tmp_path) == ["a.html: #gone", "a.html: p.png", "a.html: sub/b.html#y"]

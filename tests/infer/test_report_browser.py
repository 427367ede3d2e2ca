"""The page in a real browser: no errors, no network access, readable and usable at any width."""

from __future__ import annotations

import struct
import zlib

import pytest
from browser import Page, open_browser
from report_files import HOSTILE, write_files, write_hostile_files, write_lines

SIZES = [(320, 568), (390, 844), (1280, 900)]
"""Two phones and a desktop, width and height in CSS pixels."""
OVERFLOW = "document.scrollingElement.scrollWidth - innerWidth"
IS_OPEN = "document.querySelector('#q1').open"
TALL = "[...document.querySelectorAll('#q1 .passages li')].every((item) => item.getBoundingClientRect().height > 20)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One browser for all tests."""
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page_file(tmp_path, monkeypatch, rankllm, browser):
    """Page of the small ranking, with a docid and a name that are long and cannot be wrapped at a space."""
    write_files(tmp_path)
    long = "a-run-with-a-name-that-says-everything-about-it_" * 3 + ".jsonl"
    (tmp_path / "new.jsonl").rename(tmp_path / long)
    monkeypatch.chdir(tmp_path)
    done = rankllm(
        *("report", long, "--baseline", "base.run", "--qrels", "qrels", "--trace", "new.trace", "--output", "page.html")
    )
    assert done.code == 0, done.err
    return tmp_path / "page.html"


def colours(png):
    """Number of colours in a screenshot, from its filtered rows: sufficient to detect an empty picture."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    place, data = 8, b""
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            data += png[place + 8 : place + 8 + length]
        place += 12 + length
    return len(set(zlib.decompress(data)))


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES, ids=["small phone", "phone", "desk"])
def test_it_is_readable_at_any_width(browser, page_file, tmp_path, size, is_dark):
    """No errors and no horizontal scrolling, collapsed or expanded; the browser requests only the file."""
    page = Page(browser, page_file, width=size[0], height=size[1], is_dark=is_dark)
    assert page.evaluate(OVERFLOW) <= 0
    page.screenshot(tmp_path / "closed.png")
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.evaluate(OVERFLOW) <= 0
    assert page.evaluate(TALL)
    page.screenshot(tmp_path / "open.png")
    shots = [(tmp_path / name).read_bytes() for name in ("closed.png", "open.png")]
    assert all(struct.unpack(">II", shot[16:24]) == size for shot in shots)
    assert all(colours(shot) > 20 for shot in shots)
    red, *_ = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert red < 60 if is_dark else red > 200
    assert page.complaints() == []
    assert page.addresses() == [page_file.as_uri()]


def test_a_click_opens_a_query(browser, page_file):
    """And another click closes it."""
    page = Page(browser, page_file, width=390, height=844)
    for is_open in (True, False):
        page.click("#q1 > summary")
        assert page.evaluate(IS_OPEN) is is_open


def test_the_keyboard_is_enough(browser, page_file):
    """Tab moves from the search to the first query, and Enter opens it; the chart's bars are not in the tab order."""
    page = Page(browser, page_file, width=1280, height=900)
    stops = []
    for _ in range(4):
        page.press("Tab")
        stops.append(page.evaluate("document.activeElement.id || document.activeElement.parentElement.id"))
    assert stops == ["find", "kind", "order", "q1"]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter")
    assert page.evaluate(IS_OPEN)


def test_queries_are_found_chosen_and_turned_round(browser, page_file):
    """By words, by outcome, losses first."""
    page = Page(browser, page_file, width=390, height=844)
    shown = "[...document.querySelectorAll('#list > li:not([hidden]) > details')].map((query) => query.id).join(' ')"
    assert page.evaluate(shown) == "q1 q2 q3"
    page.click("#find")
    page.type("TREES q2?")
    assert page.evaluate(shown) == "q2"
    assert page.evaluate("document.querySelector('#count').textContent") == "1 of 3 queries"
    page.choose("find", "")
    page.choose("kind", "worse")
    assert page.evaluate(shown) == "q2 q3"
    page.choose("order", "loss")
    assert page.evaluate(shown) == "q3 q2"
    page.choose("kind", "repaired")
    assert page.evaluate(shown) == "q2"
    assert page.complaints() == []


def test_a_bar_of_the_chart_leads_to_its_query(browser, page_file):
    """It is opened, and shown even if the search had hidden it."""
    page = Page(browser, page_file, width=1280, height=900)
    page.choose("find", "nothing like it")
    page.click(".gains a[href='#q1'] rect")
    page.evaluate(f"new Promise((done) => {{ const look = () => {IS_OPEN} ? done() : setTimeout(look, 5); look(); }})")
    assert page.evaluate("document.querySelector('#q1').getBoundingClientRect().height") > 100


def test_it_works_without_scripts(browser, page_file):
    """Queries open; controls that need the script are hidden."""
    page = Page(browser, page_file, width=390, height=844, scripts=False)
    page.click("#q1 > summary")
    assert page.evaluate(IS_OPEN)
    assert page.evaluate("getComputedStyle(document.querySelector('#controls')).display") == "none"
    assert page.evaluate(OVERFLOW) <= 0


def test_no_text_runs(tmp_path, monkeypatch, rankllm, browser):
    """Script-like texts are displayed, not run, and load nothing."""
    write_hostile_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    texts = ("--trace", "hostile.trace", "--title", HOSTILE)
    done = rankllm("report", "hostile.jsonl", "--baseline", "base.run", "--qrels", "qrels", *texts)
    assert done.code == 0, done.err
    file = tmp_path / "hostile.jsonl.html"
    page = Page(browser, file, width=390, height=844)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.evaluate(OVERFLOW) <= 0
    assert (page.complaints(), page.addresses()) == ([], [file.as_uri()])


def test_the_policy_stops_what_is_put_into_the_page_later(page_file, browser):
    """If a text did become a script, the browser would block and report it, which the tests above detect."""
    source = page_file.read_text(encoding="utf-8")
    page_file.write_text(source.replace("</main>", "<script>hacked=1</script></main>"), encoding="utf-8")
    page = Page(browser, page_file, width=390, height=844)
    assert page.evaluate("typeof hacked") == "undefined"
    assert any("Content Security Policy" in said for said in page.complaints())


@pytest.mark.slow
def test_three_hundred_queries_open_at_once(tmp_path, monkeypatch, rankllm, browser):
    """A hundred candidates each: the page loads, a query opens, the search responds."""
    text = "a passage of many words " * 10
    records = [
        {
            "query": {"qid": f"q{number}", "text": f"question {number}"},
            "candidates": [{"docid": f"d{place}", "score": -place, "doc": {"text": text}} for place in range(100)],
        }
        for number in range(300)
    ]
    write_lines(tmp_path / "new.jsonl", records)
    write_lines(tmp_path / "old.jsonl", records)
    (tmp_path / "qrels").write_text("".join(f"q{number} 0 d3 1\n" for number in range(300)), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    done = rankllm("report", "new.jsonl", "--baseline", "old.jsonl", "--qrels", "qrels")
    assert done.code == 0, done.err
    assert (tmp_path / "new.jsonl.html").stat().st_size < 10_000_000
    page = Page(browser, tmp_path / "new.jsonl.html", width=390, height=844)
    page.click("#q150 > summary")
    assert page.evaluate("document.querySelector('#q150').open")
    page.click("#find")
    page.type("question 299")
    assert page.evaluate("document.querySelector('#count').textContent") == "1 of 300 queries"

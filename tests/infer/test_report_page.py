"""The page itself: complete, self-contained, and without text that becomes markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from report_files import CALL, HOSTILE, HOSTILE_QID, TRACE, write_files, write_hostile_files, write_lines

VOID = {"meta", "link", "input", "br", "hr", "img"}


class Page(HTMLParser):
    """Elements of a page, and its text outside of style and script."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.said, self.raw = [], [], "", {}
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("style", "script"):
            self.raw[self.open[-1]] = data
        else:
            self.said += " ".join(data.split()) + " " if data.strip() else ""


@pytest.fixture
def report(tmp_path, monkeypatch, rankllm):
    """Run the command in a folder with the small ranking; returns the page."""
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        done = rankllm("report", *arguments, "--qrels", "qrels", "--output", "page.html", "--overwrite")
        assert (done.code, done.out) == (0, ""), done.err
        return Page((tmp_path / "page.html").read_text(encoding="utf-8"))

    return run


USUAL = ("new.jsonl", "--baseline", "base.run", "--trace", "new.trace", "-m", "RR")


def test_the_page_says_what_was_counted(report):
    """Means, change, cost, a passage with its move, the model's answer and its defects."""
    page = report(*USUAL)
    assert not page.open
    for words in (
        "new.jsonl against base.run",
        "baseline base.run",
        "0.7778",
        "0.5000",
        "-0.2778",
        "1 / 0 / 2",
        "1 ok, 1 repaired",
        "which trees, q1?",
        "up 3, was 4",
        "grade 2",
        "model score 2.5",
        "Cedar trees.",
        "dropped, was 3",
        "The text of this passage is not available.",
        "The run has no candidates for this query.",
        "Defects: missing [1]",
        "[2] > [1]",
        "Rank [1] Birch trees. [2] Alder trees.",
    ):
        assert words in page.said, words


def test_the_figures_are_those_of_compare(report, rankllm):
    """Mean, interval, change and p of each run, as printed by the other command."""
    page = report("base.run", "--baseline", "new.jsonl", "--requests", "requests.jsonl", "-m", "RR")
    rankllm("convert", "--input", "new.jsonl", "--output", "new.run", "--to", "trec")
    done = rankllm("compare", "--qrels", "qrels", "new.run", "base.run", "-m", "RR", "--json")
    base, run = json.loads(done.out)["measures"]["RR"]
    for figures in (base, run):
        assert f"{figures['mean']:.4f}" in page.said
        assert f"{figures['interval'][0]:.3f}–{figures['interval'][1]:.3f}" in page.said
    assert f"{run['change']:+.4f}" in page.said
    assert f"{run['p_holm']:.4f}" in page.said


@pytest.mark.parametrize(
    ("docids", "scores", "said"),
    [
        (["b"], [17.5, 15.0], ", with scores [1] b yes 17.5, no 15 Prompt"),
        (["b"], [17.5, None], ", with scores [1] b yes 17.5, no n/a Prompt"),
        (["b", "a"], [2.5, None], ", with scores [1] b 2.5 [2] a Prompt"),
        (["b", "a"], [2.5, 1.5, 0.5], "in prompt order [1] b [2] a Prompt"),
    ],
)
def test_scores_of_a_call_are_named_for_what_they_are(tmp_path, report, docids, scores, said):
    """Two scores of one passage are those of yes and no; an unexpected number of scores is not shown."""
    call = CALL | {"docids": docids, "order": list(range(len(docids))), "scores": scores}
    write_lines(tmp_path / "new.trace", [TRACE[0] | {"invocations_history": [call]}])
    assert said in report(*USUAL).said


def test_a_run_of_ranks_shows_no_scores(tmp_path, report):
    """MS MARCO: ranks only."""
    (tmp_path / "ranks.tsv").write_text("q1\tc\t1\nq1\ta\t2\n", encoding="utf-8")
    page = report("ranks.tsv", "--baseline", "base.run", "--requests", "requests.jsonl")
    assert "up 3, was 4" in page.said
    assert "score -" not in page.said


def test_the_page_loads_nothing(report):
    """Addresses stay within the page; the policy forbids everything else and allows style and script by hash."""
    page = report(*USUAL)
    addresses = [value for _, found in page.elements for name, value in found.items() if name in ("src", "href")]
    assert addresses
    assert all(address.startswith("#q") or address == "data:," for address in addresses)
    assert not re.search(r"url\(|@import|https?:", page.raw["style"])
    assert not re.search(r"https?:|fetch|import\(|XMLHttp", page.raw["script"])
    (policy,) = [found["content"] for _, found in page.elements if found.get("http-equiv")]
    for name in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.raw[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_no_text_becomes_markup(tmp_path, report):
    """Query, qid, docid, title, passage, prompt, answer, defects and titles remain text."""
    usual = {tag for tag, _ in report(*USUAL).elements}
    write_hostile_files(tmp_path)
    page = report("hostile.jsonl", "--baseline", "base.run", "--trace", "hostile.trace", "--title", HOSTILE)
    assert not page.open
    assert {tag for tag, _ in page.elements} <= usual
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert not [name for _, found in page.elements for name in found if name.startswith(("on", "style"))]
    # Title twice; query and its bar; docid, title, passage; docid, prompt and answer; each of ten defects.
    assert page.said.count(HOSTILE) >= 9 + 10
    assert HOSTILE_QID in page.said
    assert "\ufffd\ufffd\u202e" in page.said


def test_a_page_is_small_and_says_what_it_leaves_out(tmp_path, report):
    """Forty queries with a hundred passages of 600 characters, 2.4 MB of text: 20 of each are kept."""
    text = "a passage of many words " * 25
    records = [
        {
            "query": {"qid": f"q{number}", "text": f"question {number}"},
            "candidates": [{"docid": f"d{place}", "score": -place, "doc": {"text": text}} for place in range(100)],
        }
        for number in range(40)
    ]
    write_lines(tmp_path / "many.jsonl", records)
    write_lines(tmp_path / "other.jsonl", records)
    (tmp_path / "qrels").write_text("".join(f"q{number} 0 d3 1\n" for number in range(40)), encoding="utf-8")
    page = report("many.jsonl", "--baseline", "other.jsonl", "--depth", "20")
    assert (tmp_path / "page.html").stat().st_size < 40 * 20 * (len(text) + 600) + 50_000
    assert page.said.count("100 candidates in total.") == 40
    page = report("many.jsonl", "--baseline", "other.jsonl", "--max-queries", "5")
    assert "Showing the 5 of 40 queries with the largest changes." in page.said
    assert (tmp_path / "page.html").stat().st_size < 5 * 20 * (len(text) + 600) + 50_000


def test_the_same_files_give_the_same_page(tmp_path, report):
    """No date, and no path of the machine."""
    report(*USUAL)
    first = (tmp_path / "page.html").read_bytes()
    report(*USUAL)
    assert (tmp_path / "page.html").read_bytes() == first
    assert str(tmp_path).encode() not in first

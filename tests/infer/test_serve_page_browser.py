"""The page of `serve` in a real browser: ranking by keyboard, moves and explanations, copying the request."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack

import pytest
from browser import Page, open_browser
from report_files import HOSTILE
from serving_fakes import PATIENCE_S, Held, Served, listwise, pointwise
from serving_live import eventually, listening

from rankllm_infer.engines.base import Answer, EngineError

KEY = "k" * 32
OVERFLOW = "document.scrollingElement.scrollWidth - innerWidth"
IS_RANKED = "!document.querySelector('#results').hidden"
IS_REFUSED = "!document.querySelector('#problem').hidden"
ROWS = "[...document.querySelectorAll('#ranking > li')].map((row) => row.innerText.trim().split(/\\s+/).join(' '))"
OPEN_ALL = "document.querySelectorAll('details').forEach((part) => { part.open = true; })"
SIX = ["dddd", "a", "ccc", "ffffff", "bb", "eeeee"]
"""The oracle ranks the shortest first: a, bb, ccc, dddd, eeeee, ffffff."""
CONTRASTS = """
(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => numbers(colour).slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return (numbers(colour)[3] ?? 1) > 0 ? colour : ground(element.parentElement);
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const holdsText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!holdsText || !element.checkVisibility() || element.matches("script, style, option")) continue;
    const [one, other] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
    if ((one + 0.05) / (other + 0.05) < 4.5) faint.push(element.outerHTML.slice(0, 80));
  }
  return faint;
})()
"""
"""Elements whose text has a contrast below 4.5:1. Source: WCAG 2.2, success criterion 1.4.3."""
ODD = ['it\'s "quoted" $HOME `id` \\n \\', "über 日本 🌱 \ud83d", "JSON\nEOF\n!! %s {x} \u202e\u200b\x7f\t"]
"""Texts with special characters of shells, Python and terminals, including a lone surrogate."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One browser for all tests."""
    with open_browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def opened(browser):
    """Opens the page of a server and waits until it shows the model or asks for a key."""
    with ExitStack() as stack:

        def open_page(served, *, width=1280, height=900, **how):
            url, recording = stack.enter_context(listening(served))
            page = Page(browser, url, width=width, height=height, **how)
            page.wait_until("document.title.includes('tiny') || !document.querySelector('#key-field').hidden")
            return page, recording

        yield open_page


def fill(page, name, text):
    """Paste a text into a field."""
    page.evaluate(
        f"(() => {{ const field = document.getElementById({json.dumps(name)}); field.value = {json.dumps(text)};"
        " field.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )


def rank(page, documents, *, query="q"):
    """Fill in the fields and press Ctrl + Enter."""
    fill(page, "query", query)
    fill(page, "passages", documents if isinstance(documents, str) else "\n".join(documents))
    page.press("Enter", control=True)


def text(page, selector):
    """Text of an element."""
    return page.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")


def test_the_keyboard_ranks_and_shows_what_moved(opened):
    """Type, Tab, type, Ctrl + Enter; ranks and moves in words; only this server is contacted."""
    page, recording = opened(Served(listwise()))
    page.press("Tab")
    page.type("which is short")
    page.press("Tab")
    page.type("\n".join(SIX))
    assert text(page, "#found") == "6 passages (one per line)"
    page.press("Enter", control=True)
    page.wait_until(IS_RANKED)
    assert page.evaluate(ROWS) == [
        "1 ▲ up 1, was 2 score 1.000 rank 2 → 1 (call 2) a",
        "2 ▲ up 3, was 5 score 0.8333 rank 5 → 3 (call 1) → 2 (call 2) bb",
        "3 unchanged score 0.6667 rank 3 → 4 (call 1) → 3 (call 2) ccc",
        "4 ▼ down 3, was 1 score 0.5000 rank 1 → 4 (call 2) dddd",
        "5 ▲ up 1, was 6 score 0.3333 rank 6 → 5 (call 1) eeeee",
        "6 ▼ down 2, was 4 score 0.1667 rank 4 → 6 (call 1) ffffff",
    ]
    assert text(page, "#said") == "6 passages ranked, status ok."
    assert "5 of 6 passages moved" in text(page, "#summary")
    assert "2 model calls in 2 rounds" in text(page, "#summary")
    assert "Scores reflect the rank only" in text(page, "#summary")
    assert recording.posted == [("/v2/rerank", {"query": "which is short", "documents": SIX, "explain": True})]
    origin = page.evaluate("location.origin")
    assert {address.removeprefix(origin) for address in page.addresses()} == {"/", "/v1/models", "/v2/rerank"}
    assert page.complaints() == []


def test_it_says_why(opened):
    """For each window: the passages shown, the answer, the order parsed from it."""
    page, _ = opened(Served(listwise()))
    rank(page, SIX)
    page.wait_until(IS_RANKED)
    page.click("#calls > details > summary")
    page.wait_until("document.querySelectorAll('#calls table').length === 2")
    call = "(call) => call.innerText.trim().split(/\\s+/).join(' ')"
    first, second = page.evaluate(f"[...document.querySelectorAll('#calls li')].map({call})")
    assert first == (
        "Call 1 ranks 3–6 ok 10 prompt tokens, 3 output tokens Answer [3] > [1] > [4] > [2] Order parsed from the "
        "answer Rank Identifier Passage 3 [3] 5. bb 4 [1] 3. ccc 5 [4] 6. eeeee 6 [2] 4. ffffff"
    )
    assert second.startswith("Call 2 ranks 1–4 ok ")


def test_pointwise_scores_and_options(opened):
    """Window options are hidden; titles, ids and long passages are shown, the latter truncated."""
    page, recording = opened(Served(pointwise()))
    long = "word " * 100
    lines = [{"text": "worth 1"}, {"docid": "D7", "title": "Two", "text": long + "worth 2"}, "worth 3"]
    fill(page, "top_n", "2")
    page.evaluate("document.querySelector('#raw_scores').checked = true")
    rank(page, "\n".join(map(json.dumps, lines)))
    page.wait_until(IS_RANKED)
    assert recording.posted == [
        ("/v2/rerank", {"query": "q", "documents": lines, "top_n": 2, "raw_scores": True, "explain": True})
    ]
    rows = page.evaluate(ROWS)
    assert rows[0] == "1 ▲ up 2, was 3 score 3.000 worth 3"
    assert rows[1].startswith("2 unchanged score 2.000 D7 Two word word")
    page.click("#ranking > li:nth-child(2) details > summary")
    assert page.evaluate(ROWS)[1].endswith("word worth 2")
    assert text(page, "#cut") == "1 passage ranked lower is not in the response."
    shown = (
        "[...document.querySelectorAll('[data-needs]')].filter((part) => !part.hidden).map((part) => part.textContent)"
    )
    assert [option.strip() for option in page.evaluate(shown)] == ["Raw model scores"]


def test_a_request_takes_its_own_windows(opened):
    """Within the server's limits; the stride is shown only for sliding windows."""
    page, recording = opened(Served(listwise()))
    page.click("#options > summary")
    fill(page, "window_size", "3")
    page.choose("strategy", "full")
    assert page.evaluate("document.querySelector('#window-label').hidden")
    page.choose("strategy", "tournament")
    assert not page.evaluate("document.querySelector('#window-label').hidden")
    assert page.evaluate("document.querySelector('#stride-label').hidden")
    rank(page, SIX)
    page.wait_until(IS_RANKED)
    assert (recording.posted[0][1]["strategy"], recording.posted[0][1]["window_size"]) == ("tournament", 3)
    assert text(page, "#cut") == "The model ranked the top 1 only; it did not determine the order of the others."
    assert "call" not in " ".join(page.evaluate(ROWS))  # windows that are no slices of the ranking have no ranks
    fill(page, "window_size", "5")
    page.evaluate("document.querySelector('#options').open = false")
    rank(page, SIX)
    assert page.evaluate("document.activeElement.id") == "window_size"
    assert len(recording.posted) == 1


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("a\n\nb\nc\n \nd", "3 passages (paragraphs)"),
        ("a\r\nb\r\n", "2 passages (one per line)"),
        ('{"text": "a"}\n\n"b"\n', "2 passages (JSON lines)"),
        ('["a", {"contents": "b"}]', "2 passages (a JSON array)"),
        ("[1] is a citation", "1 passage (one per line)"),
        ("{not JSON}", "1 passage (one per line)"),
        ('{"text": "a"}\n{"text": ', "line 2: not JSON: "),
        ('{"text": "a"}\n{"title": "b"}', 'line 2: expected a string, or an object with a string under "text"'),
        (" \n", "no passages yet"),
    ],
)
def test_what_was_pasted_is_counted_and_named(opened, given, found):
    """To show how it was parsed; a malformed line is named."""
    page, _ = opened(Served(listwise()))
    fill(page, "passages", given)
    assert text(page, "#found").startswith(found)


def test_files_are_read(opened, tmp_path):
    """Text and tables; other files give an error."""
    page, recording = opened(Served(listwise()))
    (tmp_path / "a.csv").write_text('title,text\r\n"A, ""a""","ccc\nc"\r\nB,a\r\n', encoding="utf-8")
    (tmp_path / "b.tsv").write_text('docid\ttext\n7\t"bb\n8\tc\n', encoding="utf-8")  # quotes are text in a .tsv
    (tmp_path / "c.txt").write_bytes(b"a\nb\nc\n")
    (tmp_path / "d.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "e.csv").write_text("a,b\n1,2\n")
    (tmp_path / "f.csv").write_text("text,b\n1,2,3\n")
    (tmp_path / "g.csv").write_text('text\na\n"b\nc\n')
    expected = {
        "a.csv": "2 passages (JSON lines)",
        "b.tsv": "2 passages (JSON lines)",
        "c.txt": "3 passages (one per line)",
        "d.txt": "d.txt: not valid UTF-8 text",
        "e.csv": 'e.csv: expected a column "text" in the first row, found a, b',
        "f.csv": "f.csv: row 2: expected 2 columns, found 3",
        "g.csv": "g.csv: row 3: unterminated quote",
    }
    for name, found in expected.items():
        page.give_file("#file", tmp_path / name)
        page.wait_until(f"document.querySelector('#found').innerText === {json.dumps(found)}")
    drop = (
        "(...names) => { const dropped = new DataTransfer();"
        " for (const name of names) dropped.items.add(new File(['dropped\\nhere'], name));"
        " const how = { dataTransfer: dropped, bubbles: true, cancelable: true };"
        " document.body.dispatchEvent(new DragEvent('drop', how)); }"
    )
    page.evaluate(f"({drop})('g.txt')")
    page.wait_until("document.querySelector('#passages').value === 'dropped\\nhere'")
    page.evaluate(f"({drop})('g.txt', 'h.txt')")
    page.wait_until("document.querySelector('#found').innerText === 'expected one file, found 2'")
    page.give_file("#file", tmp_path / "a.csv")
    page.wait_until("document.querySelector('#passages').value.includes('ccc')")
    fill(page, "query", "q")
    page.press("Enter", control=True)
    page.wait_until(IS_RANKED)
    assert recording.posted[0][1]["documents"] == [{"title": 'A, "a"', "text": "ccc\nc"}, {"title": "B", "text": "a"}]


def test_no_text_runs(opened):
    """Queries, passages, answers and defects are displayed, not run."""
    answer = Answer(text=f"{HOSTILE} [2] > [1]")
    page, _ = opened(Served(listwise(answer=lambda prompt: answer), served_model_name=("tiny" + HOSTILE,)))
    passages = [json.dumps({"title": HOSTILE, "text": HOSTILE + " long" * 200, "id": HOSTILE}), json.dumps(HOSTILE)]
    rank(page, passages, query=HOSTILE)
    page.wait_until(IS_RANKED)
    for _ in range(3):  # what is opened may hold more to open
        page.evaluate(OPEN_ALL)
        page.evaluate("new Promise((done) => setTimeout(done, 50))")
    assert HOSTILE in text(page, "#calls pre")
    assert HOSTILE in text(page, "#ranking > li:nth-child(2)")
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.evaluate("document.querySelectorAll('main img, main script').length") == 0
    assert page.evaluate(OVERFLOW) <= 0
    assert page.complaints() == []


def test_the_policy_stops_what_is_put_into_the_page_later(opened):
    """A script, a style, a picture and a request elsewhere: the browser blocks and reports each."""
    page, _ = opened(Served(listwise()))
    page.evaluate(
        "(() => { const made = document.createElement('script'); made.textContent = 'hacked = 1';"
        " document.body.append(made); })()"
    )
    assert page.evaluate("typeof hacked") == "undefined"
    refused = page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')")
    assert refused == "refused"
    assert sum("Content Security Policy" in said for said in page.complaints()) >= 2
    assert not any(":9/" in address for address in page.addresses())


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [(320, 568), (1280, 900)], ids=["small phone", "desk"])
def test_it_is_readable_at_any_width_in_both_schemes(opened, size, is_dark):
    """No horizontal scrolling, collapsed or expanded; text has a contrast of at least 4.5:1."""
    page, _ = opened(
        Served(listwise(answer=lambda prompt: Answer(text="no"))), width=size[0], height=size[1], is_dark=is_dark
    )
    assert page.evaluate(OVERFLOW) <= 0
    rank(page, ["a-passage-without-a-blank" * 20, "b"])
    page.wait_until(IS_RANKED)
    for _ in range(3):
        page.evaluate(OPEN_ALL)
        page.evaluate("new Promise((done) => setTimeout(done, 50))")
    assert page.evaluate(OVERFLOW) <= 0
    assert page.evaluate(CONTRASTS) == []
    red, *_ = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert red < 60 if is_dark else red > 200


def test_a_fallback_says_that_it_is_one(opened):
    """In words, at the top, with the defects."""
    page, _ = opened(Served(listwise(answer=lambda prompt: Answer(text="I cannot rank these."))))
    rank(page, ["a", "b"])
    page.wait_until(IS_RANKED)
    shown = text(page, "#summary")
    assert shown.startswith("Fallback: where the model returned no ranking, passages keep their previous order.")
    assert "Defects: ranks 1-2: missing [1]; ranks 1-2: missing [2]" in shown
    assert text(page, "#cut") == "The model ranked no passages."
    page.click("#calls > details > summary")
    page.wait_until("document.querySelectorAll('#calls caption').length === 1")
    assert text(page, "#calls caption") == "Order kept: the answer contained no ranking"


def test_every_control_has_a_name(opened):
    """For screen readers."""
    page, _ = opened(Served(listwise()))
    nameless = (
        "[...document.querySelectorAll('input, select, textarea, button')]"
        ".filter((one) => !(one.labels?.length || one.innerText)).map((one) => one.id)"
    )
    assert page.evaluate(nameless) == []
    assert page.evaluate("document.documentElement.lang") == "en"


def test_motion_is_left_out_where_it_is_not_wanted(opened):
    """The spinner does not move."""
    for is_still, expected in ((True, "none"), (False, "turn")):
        page, _ = opened(Served(listwise()), is_still=is_still)
        page.evaluate("document.querySelector('#busy').hidden = false")
        assert page.evaluate("getComputedStyle(document.querySelector('.spinner')).animationName") == expected


def test_cancel_frees_the_place_in_the_queue(opened):
    """With Escape; until then the page shows that it is busy."""
    held = Held()
    served = Served(pointwise(held))
    page, _ = opened(served)
    page.evaluate("document.querySelector('#rank').focus()")
    rank(page, ["worth 1"])
    assert held.has_begun.wait(PATIENCE_S)
    assert page.evaluate("document.querySelector('#rank').disabled")
    assert page.evaluate("document.activeElement.id") == "cancel"
    assert served.desk.n_unfinished == 1
    page.press("Escape")
    page.wait_until("document.querySelector('#said').innerText === 'Cancelled.'")
    assert page.evaluate("document.activeElement.id") == "rank"
    held.may_go.set()
    eventually(lambda: served.desk.n_unfinished == 0)
    rank(page, ["worth 1"])
    page.wait_until(IS_RANKED)


@pytest.mark.parametrize(
    ("served", "documents", "words"),
    [
        (
            lambda: Served(listwise(), max_documents=1),
            "a\nb",
            "413 Request Entity Too Large: documents: expected at most 1",
        ),
        (lambda: Served(pointwise(lambda prompt: EngineError("cannot digest this"))), "a", "cannot digest this"),
    ],
    ids=["413", "422"],
)
def test_errors_are_in_the_servers_words(opened, served, documents, words):
    """With the request's id, by which the log can be searched."""
    page, _ = opened(served())
    rank(page, documents)
    page.wait_until(IS_REFUSED)
    shown = text(page, "#problem")
    assert words in shown
    assert "Request ID " in shown
    assert page.evaluate("document.querySelector('#results').hidden")


def test_a_full_queue_says_when_to_try_again(opened):
    """429 with Retry-After."""
    served = Served(listwise(), max_queue=1)
    page, _ = opened(served)
    with served.desk.slot():
        rank(page, ["a"])
        page.wait_until(IS_REFUSED)
    assert text(page, "#problem").startswith("429 Too Many Requests: the queue is full with 1 requests")
    assert "Try again in 1 s." in text(page, "#problem")
    rank(page, ["a"])
    page.wait_until(IS_RANKED)
    assert page.evaluate("document.querySelector('#problem').hidden")


def test_a_server_that_is_gone_is_no_crash(browser):
    """The page reports that it cannot be reached."""
    with listening(Served(listwise())) as (url, _):
        page = Page(browser, url, width=1280, height=900)
        page.wait_until("document.title.includes('tiny')")
    rank(page, ["a"])
    page.wait_until(IS_REFUSED)
    assert text(page, "#problem") == "The server cannot be reached or closed the connection."


def test_a_key_is_asked_for_and_kept_in_memory(opened):
    """A wrong one is rejected with a message; a right one shows the model. It is not in addresses or storage."""
    page, _ = opened(Served(listwise(), keys=(KEY,)))
    assert page.evaluate("document.querySelector('#problem').hidden")
    fill(page, "key", "wrong key")
    rank(page, ["a", "b"])
    page.wait_until(IS_REFUSED)
    assert text(page, "#problem") == "API key: expected ASCII characters without spaces"
    fill(page, "key", "x" * 32)
    rank(page, ["a", "b"])
    page.wait_until("document.querySelector('#problem').innerText.includes('401')")
    assert "expected a known API key" in text(page, "#problem")
    assert page.evaluate("document.activeElement.id") == "key"
    page.choose("key", KEY)
    page.wait_until("document.title.includes('tiny')")
    rank(page, ["a", "b"])
    page.wait_until(IS_RANKED)
    assert page.evaluate("location.href + document.cookie + JSON.stringify([localStorage, sessionStorage])").endswith(
        "/[{},{}]"
    )
    assert KEY not in page.evaluate("document.documentElement.outerHTML")
    assert all(KEY not in address for address in page.addresses())


@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["open", "with a key"])
@pytest.mark.parametrize("root_path", ["", "/it's/r"], ids=["root", "proxy"])
def test_the_copied_request_is_the_request(opened, tmp_path, keys, root_path):
    """curl and Python send equivalent JSON to the same URL and print the same ranking."""
    page, recording = opened(Served(listwise(), keys=keys, root_path=root_path))
    if keys:
        page.choose("key", KEY)
        page.wait_until("document.title.includes('tiny')")
    lines = [{"text": text, "n": [None, True, 1.5, -3, {}, []]} for text in ODD]
    rank(page, "\n".join(map(json.dumps, lines)), query=" ".join(ODD))
    page.wait_until(IS_RANKED)
    page.evaluate(OPEN_ALL)
    page.wait_until("document.querySelector('#python').textContent !== ''")
    snippets = {name: page.evaluate(f"document.querySelector('#{name}').textContent") for name in ("curl", "python")}
    assert KEY not in "".join(snippets.values())
    environment = os.environ | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "RANKLLM_API_KEY": KEY}
    (tmp_path / "asked.py").write_text(snippets["python"], encoding="utf-8")
    commands = (
        [sys.executable, tmp_path / "asked.py"],
        ["bash", "-c", snippets["curl"].replace("curl ", "curl -sS ", 1)],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, env=environment, timeout=PATIENCE_S, check=True)
        results = json.loads(done.stdout)["results"]
        shown = page.evaluate("[...document.querySelectorAll('#ranking .rank')].length")
        assert len(results) == shown == 3
    path = f"{root_path}/v2/rerank"
    sent = {"query": " ".join(ODD), "documents": lines, "explain": True}
    assert recording.posted == [(path, sent)] * 3


def test_it_works_behind_a_proxys_path_with_and_without_a_slash(opened, browser):
    """Requests go to the page's own origin and path."""
    page, recording = opened(Served(listwise(), root_path="/rerankers/tiny"))
    url = page.evaluate("location.href")
    assert url.endswith("/rerankers/tiny/")
    for address in (url, url.removesuffix("/")):
        page = Page(browser, address, width=1280, height=900)
        page.wait_until("document.title.includes('tiny')")
        rank(page, ["a", "b"])
        page.wait_until(IS_RANKED)
    assert [path for path, _ in recording.posted] == ["/rerankers/tiny/v2/rerank"] * 2


def test_copying_writes_to_the_clipboard_or_selects(opened, browser):
    """If writing is not permitted, the text is shown and selected."""
    page, _ = opened(Served(listwise()))
    rank(page, ["a", "b"])
    page.wait_until(IS_RANKED)
    page.evaluate(
        "Object.defineProperty(navigator, 'clipboard', { configurable: true,"
        " value: { writeText: (text) => { window.written = text; return Promise.resolve(); } } })"
    )
    page.click("[data-copy=curl]")
    page.wait_until("document.querySelector('#copied').innerText === 'Copied.'")
    assert page.evaluate("written").startswith("curl '")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { configurable: true, value: undefined })")
    page.click("[data-copy=python]")
    page.wait_until("document.querySelector('#copied').innerText === 'Selected: press Ctrl + C.'")
    assert page.evaluate("getSelection().toString()").startswith("import json")


def test_a_thousand_passages_are_shown(opened):
    """The server's default limit; of the model calls, the first 200 and the number of further ones."""
    page, _ = opened(Served(pointwise()))
    rank(page, [f"worth {number}" for number in range(1000)])
    page.wait_until(IS_RANKED)
    assert page.evaluate("document.querySelectorAll('#ranking > li').length") == 1000
    assert page.evaluate("document.querySelector('#ranking > li').innerText").startswith("1\n▲ up 999, was 1000")
    page.click("#calls > details > summary")
    page.wait_until("document.querySelectorAll('#calls tbody tr').length === 200")
    assert text(page, "#calls .none") == "The response contains 800 more."

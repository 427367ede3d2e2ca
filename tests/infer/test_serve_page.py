"""The page of `serve` as sent: who gets it, its permissions in a browser, and what it reveals without a key."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import get_args

import pytest
from ranking_fakes import make_method
from serving_fakes import HEAD, Served, listwise, pointwise

from rankllm_core.card import PairwiseCard, PointwiseCard
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.template import load_template
from rankllm_core.text import TEXT_FIELDS
from rankllm_infer.pages.inlined import inlined
from rankllm_infer.ranking.pairwise import PairwiseMethod
from rankllm_infer.ranking.pointwise import PointwiseMethod
from rankllm_infer.ranking.relevance import ScoreKind
from rankllm_infer.ranking.settings import RankingSettings
from rankllm_infer.serving.capabilities import abilities_of, capabilities
from rankllm_infer.serving.page.content import make_content
from rankllm_infer.serving.settings import ServerOptions

KEY = "k" * 32


def policy(done):
    """The content security policy, by directive."""
    parts = [part.strip().partition(" ") for part in done.headers["content-security-policy"].split(";")]
    return {name: sources for name, _, sources in parts}


def test_the_policy_lets_nothing_run_but_the_pages_own():
    """By the hash of its only script and style sheet; it cannot be framed and connects only to this server."""
    done = Served(listwise()).ask("GET", "/")
    assert (done.status_code, done.headers["content-type"]) == (200, "text/html; charset=utf-8")
    inside = {name: re.findall(rf"<{name}>(.*?)</{name}>", done.text, re.DOTALL) for name in ("script", "style")}
    hashes = {}
    for name, texts in inside.items():
        (text,) = texts
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[name] = f"'sha256-{digest}'"
    assert policy(done) == {
        "default-src": "'none'",
        "script-src": hashes["script"],
        "style-src": hashes["style"],
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert done.headers["x-content-type-options"] == "nosniff"
    assert done.headers["referrer-policy"] == "no-referrer"
    assert done.headers["cross-origin-opener-policy"] == "same-origin"
    assert done.headers["cross-origin-resource-policy"] == "same-origin"


def test_it_names_nothing_outside_itself():
    """No address except the empty icon's, no handlers in attributes, no text inserted as markup."""
    text = Served(listwise()).ask("GET", "/").text
    assert re.findall(r'(?:src|href|action)="([^"]*)"', text) == ["data:,"]
    assert not re.search(r"https?://|\son\w+=|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)
    assert not re.search(r"localStorage|sessionStorage|indexedDB|document\.cookie", text)


def test_it_is_read_only():
    """GET and HEAD, with caching by ETag."""
    served = Served(listwise())
    done, head = served.ask("GET", "/"), served.ask("HEAD", "/")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(done.content))
    tag = done.headers["etag"]
    for known in (tag, f'"other", W/{tag}', "*"):
        again = served.ask("GET", "/", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert served.ask("GET", "/", headers={"If-None-Match": '"other"'}).status_code == 200
    assert done.headers["cache-control"] == "no-cache"
    assert served.ask("POST", "/").status_code == 405
    assert [line["path"] for line in served.lines] == ["/"] * 7


def test_it_opens_without_a_key_and_holds_no_data(tmp_path):
    """The model's name requires the key; `--protect page` also protects the page."""
    keys = {"keys": (KEY,), "api_key_file": tmp_path / "keys"}
    served = Served(listwise(), served_model_name=("our-secret-model",), **keys)
    done = served.ask("GET", "/")
    assert done.status_code == 200
    assert "our-secret-model" not in done.text
    assert served.ask("GET", "/v1/models").status_code == 401
    closed = Served(listwise(), protect=("page",), **keys)
    assert closed.ask("GET", "/").status_code == 401
    assert closed.ask("GET", "/health").status_code == 200
    with pytest.raises(ConfigError, match="--protect has no effect without --api-key-file"):
        ServerOptions(protect=("page",))


def test_it_answers_to_this_servers_names_only():
    """Like every other path."""
    assert Served(listwise()).ask("GET", "/", headers={"Host": "evil.example"}).status_code == 400


def test_it_is_the_same_for_every_request_and_every_server():
    """Also behind a proxy's path: it contains nothing specific to either."""
    served = [Served(listwise()), Served(pointwise(), root_path="/r")]
    assert [each.ask("GET", "/").text for each in served] == [make_content().body.decode()] * 2


def test_openapi_describes_it(tmp_path):
    """As a path that needs no key unless protected."""
    described = Served(listwise(), api_key_file=tmp_path / "keys").ask("GET", "/openapi.json").json()
    assert described["paths"]["/"]["get"]["security"] == []
    assert described["paths"]["/v1/models"]["get"]["security"] == [{"key": []}]
    closed = Served(listwise(), api_key_file=tmp_path / "keys", protect=("page",)).ask("GET", "/openapi.json").json()
    assert closed["paths"]["/"]["get"]["security"] == [{"key": []}]


def told(method, options):
    """What `GET /v1/models` reports for a method."""
    abilities = abilities_of(method, models=None, max_documents=options.max_documents)
    return capabilities(method, abilities, options)


def test_the_model_list_says_what_a_request_may_hold():
    """Strategies and windows of a listwise model; instruction and scores of a pointwise one."""
    options = ServerOptions(max_documents=7, max_body=300)
    limits = {"max_documents": 7, "max_body": 300}
    listwise_only = {
        "method": "listwise",
        "strategies": ["sliding", "full", "top-down", "tournament"],
        "strategy": "sliding",
        "window_size": 4,
        "stride": 2,
        "instruction": False,
    }
    generates = make_method(size=4, stride=2)
    assert told(generates, options) == listwise_only | {"raw_scores": False} | limits
    first = make_method(size=4, stride=2, card={"answer": "first-token"})
    assert told(first, options) == listwise_only | {"raw_scores": True} | limits
    windowless = {"window_size": None, "stride": None}
    plain = {"method": "pointwise", "strategies": [], "strategy": None, "raw_scores": True, **windowless, **limits}
    for card, instruction in ((HEAD, False), (PointwiseCard(template=load_template("qwen3_reranker")), True)):
        method = PointwiseMethod(card, RankingSettings(), None)
        assert told(method, options) == plain | {"instruction": instruction}
    card = PairwiseCard(template=load_template("pairwise"))
    for strategy, has_scores in ((None, True), ("heapsort", False)):
        found = told(PairwiseMethod(card, RankingSettings(strategy=strategy), None), options)
        assert (found["method"], found["strategies"]) == ("pairwise", ["all-pairs", "heapsort", "bubble"])
        assert (found["strategy"], found["raw_scores"]) == (strategy or "all-pairs", has_scores)
    body = Served(listwise()).ask("GET", "/v1/models").json()
    assert body["data"][0]["ranking"]["window_size"] == 4


def test_the_scripts_know_what_the_server_knows():
    """Text fields of documents, and each kind of score."""
    text = make_content().body.decode()
    assert f"const TEXT_FIELDS = {json.dumps(list(TEXT_FIELDS))};" in text
    explained = text.partition("const SCORES = {")[2].partition("};")[0]
    assert re.findall(r"^ +(\w+): ", explained, re.MULTILINE) == list(get_args(ScoreKind))


def test_a_file_that_would_end_its_element_is_refused(monkeypatch, tmp_path):
    """`</` in a script would end it in the browser, at any position."""
    (tmp_path / "bad.js").write_text("const text = '</script>';")
    monkeypatch.setattr("rankllm_infer.pages.inlined.files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"bad\.js: contains '</'"):
        inlined(("bad.js",))

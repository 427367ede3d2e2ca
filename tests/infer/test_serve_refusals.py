"""What `serve` rejects, in the caller's dialect; and no request text leaks elsewhere."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from serving_fakes import PATIENCE_S, Held, Served, listwise, pointwise, worth
from shared_files import REPOSITORY

from rankllm_core.errors import ConfigError, DataError, RankLLMError
from rankllm_infer.api_keys import read_keys
from rankllm_infer.engines.base import EngineError
from rankllm_infer.option_table import rows_of
from rankllm_infer.serving.settings import ServerOptions

QUESTION = {"query": "q", "documents": ["worth 1", "worth 2"]}
KEY, OTHER_KEY = "k" * 32, "o" * 40


@pytest.fixture
def served():
    """A pointwise model."""
    return Served(pointwise())


def message(done):
    """The error's message, in any dialect."""
    body = done.json()
    inner = body.get("error")
    return body.get("message") or body.get("detail") or (inner["message"] if isinstance(inner, dict) else inner)


@pytest.mark.parametrize(
    ("path", "body", "status", "expected"),
    [
        ("/v2/rerank", {"documents": ["a"]}, 400, {"message"}),
        ("/v1/rerank", {"documents": ["a"]}, 422, {"detail"}),
        ("/v1/rerank", {"documents": ["a"], "rank_fields": ["text"]}, 400, {"message"}),
        ("/rerank", {"documents": ["a"]}, 400, {"error"}),
        ("/rerank", {"texts": ["a"]}, 422, {"error", "error_type"}),
        ("/rerank", {"query": "q", "texts": []}, 400, {"error", "error_type"}),
    ],
)
def test_errors_are_in_the_dialect_of_the_request(served, path, body, status, expected):
    """Where its clients look for them, with the request's id."""
    done = served.post(path, body)
    assert (done.status_code, set(done.json())) == (status, expected)
    assert done.headers["x-request-id"]
    assert message(done).startswith(("query: expected a non-empty string", "texts: expected at least one"))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"top_n": 0}, "top_n: expected an integer of at least 1"),
        ({"top_n": -1}, "top_n: expected an integer from 0"),
        ({"top_n": True}, "top_n: expected an integer"),
        ({"top_n": 1.5}, "found the number 1.5"),
        ({"query": " "}, "query: expected a non-empty string"),
        ({"query": ["q"]}, "query: expected a string, found an array"),
        ({"documents": [3]}, r"documents[0]: expected a string or an object with its text, found the number 3"),
        ({"documents": [{"a": 1}]}, r'documents[0]: expected an object with a string under "text"'),
        ({"documents": [{"text": ["a"]}]}, r'documents[0]: expected an object with a string under "text"'),
        ({"documents": 3}, "documents: expected an array of documents, found the number 3"),
        ({"documents": []}, "documents: expected at least one document, found none"),
        ({"strategy": "magic"}, "strategy: expected one of sliding"),
        ({"window_size": 2}, "window_size: has no effect on a pointwise model"),
        ({"instruction": "strict"}, "instruction has no effect"),
        ({"return_documents": "yes"}, "return_documents: expected a boolean, found the string 'yes'"),
    ],
)
def test_values_that_cannot_be_used_are_named(served, more, words):
    """Field, found and expected."""
    done = served.post("/v2/rerank", QUESTION | more)
    assert done.status_code in (400, 422)
    assert words in message(done)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"window_size": 5}, "window_size: expected at most 4, the server's window size, found 5"),
        ({"window_size": 2, "stride": 3}, "stride"),
        ({"strategy": "tournament", "stride": 1}, "stride: has no effect with strategy tournament"),
        ({"strategy": "heapsort"}, "is a pairwise strategy"),
        ({"raw_scores": True}, "raw_scores: this model ranks documents without a score for each"),
    ],
)
def test_a_listwise_model_keeps_to_the_servers_windows(more, words):
    """A request may choose smaller windows, not larger ones."""
    done = Served(listwise()).post("/v2/rerank", QUESTION | more)
    assert done.status_code == 400
    assert words in message(done)


@pytest.mark.parametrize(("path", "key", "status"), [("/v2/rerank", "documents", 400), ("/rerank", "texts", 422)])
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"instruction": "strict"}, "the instruction has no effect"),
        ({"strategy": "full"}, "strategy full supports at most 4 documents (the window size), found 5"),
        ({"strategy": "full", "window_size": 2}, "window_size: has no effect with strategy full"),
    ],
)
def test_what_a_model_can_never_do_is_a_bad_request(path, key, status, more, words):
    """Not a failure of the model, which would be 424 in TEI's dialect; the model is not called."""
    served = Served(listwise())
    done = served.post(path, {"query": "q", key: list("abcde")} | more)
    assert (done.status_code, words in message(done)) == (status, True)
    assert served.desk.reranker.engine.asked == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1, 2",
        b"\xff\xfe",
        b'{"query": NaN',
        b"[" * 50_000,
        b'{"a":' * 500 + b"1" + b"}" * 500,
        b"9" * 5000,
    ],
)
@pytest.mark.parametrize("path", ["/rerank", "/v2/rerank", "/score"])
def test_what_is_no_json_is_a_bad_request(served, path, content):
    """However it is malformed."""
    assert served.ask("POST", path, content=content).status_code == 400


def test_numbers_that_no_response_can_hold(served):
    """Infinite ones, in any notation."""
    for number in ("1e999", "NaN", "-Infinity"):
        content = f'{{"query": "q", "documents": [{{"text": "worth 1", "n": [{number}]}}]}}'
        done = served.ask("POST", "/rerank", content=content)
        assert (done.status_code, message(done)) == (400, "documents[0]: contains a number that is infinite or NaN")


def test_half_a_character_comes_back_as_it_was_sent(served):
    """UTF-8 cannot represent it, but an escape can."""
    done = served.ask(
        "POST", "/rerank", content=rb'{"query": "\ud83d", "documents": ["\ud83d worth 1", "\u00fc worth 0"]}'
    )
    texts = [item["document"]["text"] for item in done.json()["results"]]
    assert (done.status_code, texts) == (200, ["\ud83d worth 1", "ü worth 0"])


def test_what_is_no_object_is_a_bad_request(served):
    """An array, a string, null."""
    assert [served.post("/rerank", body).status_code for body in ([], "q", None, 3)] == [400] * 4


def test_unknown_paths_and_methods(served):
    """In JSON as well."""
    assert served.ask("GET", "/nothing").status_code == 404
    done = served.ask("GET", "/v2/rerank")
    assert (done.status_code, done.headers["allow"]) == (405, "POST")
    assert message(done)


def test_limits():
    """Documents, and bytes, announced or not."""
    served = Served(pointwise(), max_documents=2, max_body=300)
    assert served.post("/v2/rerank", QUESTION).status_code == 200
    done = served.post("/v2/rerank", QUESTION | {"documents": ["a"] * 3})
    assert (done.status_code, message(done)[:40]) == (413, "documents: expected at most 2 documents,")
    assert served.post("/score", {"text_1": "q", "text_2": ["a"] * 3}).status_code == 413
    assert served.post("/v2/rerank", QUESTION | {"documents": ["a" * 300]}).status_code == 413

    async def unannounced():
        for _ in range(4):
            yield b" " * 100

    assert served.ask("POST", "/v2/rerank", content=unannounced()).status_code == 413
    assert served.desk.n_unfinished == 0


def test_models_are_known_by_name():
    """Or any name is accepted."""
    assert Served(pointwise()).post("/v2/rerank", QUESTION | {"model": "tiny"}).status_code == 200
    done = Served(pointwise()).post("/v2/rerank", QUESTION | {"model": "rerank-v4"})
    assert (done.status_code, message(done)) == (404, "model: expected 'tiny'; no other model is served here")
    both = Served(pointwise(), served_model_name=("a", "b"))
    assert [both.post("/rerank", QUESTION | {"model": m}).status_code for m in ("a", "b", "tiny")] == [200, 200, 404]
    assert both.post("/rerank", QUESTION).json()["model"] == "a"
    done = Served(pointwise(), any_model_name=True).post("/rerank", QUESTION | {"model": "rerank-v4"})
    assert (done.status_code, done.json()["model"]) == (200, "rerank-v4")


def test_keys_open_the_server(tmp_path):
    """Several keys; probes and metrics need none unless protected."""
    (tmp_path / "keys").write_text(f"# ours\n{KEY}\n\n{OTHER_KEY}\n")
    keys = read_keys(tmp_path / "keys")
    served = Served(pointwise(), keys=keys)
    for key in (KEY, OTHER_KEY):
        assert served.post("/v2/rerank", QUESTION, headers={"Authorization": f"Bearer {key}"}).status_code == 200
    for header in ("", "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", KEY, "Bearer ü"):
        done = served.post("/v2/rerank", QUESTION, headers={"Authorization": header.encode()})
        assert (done.status_code, done.headers["www-authenticate"]) == (401, "Bearer")
    assert served.ask("GET", "/v1/models").status_code == 401
    assert [served.ask("GET", f"/{page}").status_code for page in ("health", "ready", "metrics")] == [200] * 3
    closed = Served(pointwise(), keys=keys, protect=("metrics",), api_key_file=tmp_path / "keys")
    assert [closed.ask("GET", f"/{page}").status_code for page in ("health", "ready", "metrics")] == [200, 200, 401]
    assert KEY not in served.stream.getvalue() + repr(served.__dict__)


@pytest.mark.parametrize("content", ["short\n", "two words that are long enough\n", "", "# none\n"])
def test_a_file_of_bad_keys_is_refused_without_showing_them(tmp_path, content):
    """By line number."""
    (tmp_path / "keys").write_text(content)
    with pytest.raises(DataError, match="openssl rand") as caught:
        read_keys(tmp_path / "keys")
    assert "short" not in str(caught.value).replace(str(tmp_path), "")


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("evil.example", 400), ("", 400)],
)
def test_a_local_server_answers_to_its_own_names(served, host, status):
    """A web page whose name resolves to this machine gets nothing."""
    assert served.post("/v2/rerank", QUESTION, headers={"Host": host}).status_code == status
    public = Served(pointwise(), host="0.0.0.0")
    assert public.post("/v2/rerank", QUESTION, headers={"Host": host}).status_code == 200
    named = Served(pointwise(), allowed_host=("evil.example",))
    assert named.post("/v2/rerank", QUESTION, headers={"Host": "Evil.example:80"}).status_code == 200


def test_browsers_call_from_origins_that_are_named():
    """And from no other."""
    served = Served(pointwise(), cors_origin=("https://app.example",), keys=())
    asks = {"Access-Control-Request-Method": "POST"}
    done = served.ask("OPTIONS", "/v2/rerank", headers=asks | {"Origin": "https://app.example"})
    assert (done.status_code, done.headers["access-control-allow-origin"]) == (200, "https://app.example")
    done = served.ask("OPTIONS", "/v2/rerank", headers=asks | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in done.headers
    assert (
        "access-control-allow-origin"
        not in Served(pointwise()).post("/rerank", QUESTION, headers={"Origin": "https://app.example"}).headers
    )


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}]
)
def test_web_pages_of_other_origins_get_nothing_done(headers):
    """Browsers send such requests without preflight: none reaches the model, whatever its declared type."""
    content = json.dumps(QUESTION)
    for options, origin, status in [
        ({}, "https://evil.example", 403),
        ({}, "null", 403),
        ({}, "http://localhost:3000", 403),
        ({"cors_origin": ("https://app.example",)}, "https://evil.example", 403),
        ({"cors_origin": ("https://app.example",)}, "https://app.example", 415),
        ({"cors_origin": ("*",)}, "https://evil.example", 415),
        ({}, "http://localhost", 415),
    ]:
        served = Served(pointwise(), **options)
        done = served.ask("POST", "/v2/rerank", content=content, headers=headers | {"Origin": origin})
        assert (done.status_code, set(done.json())) == (status, {"message"}), origin
        assert served.desk.reranker.engine.asked == []


def test_web_pages_that_may_call_are_answered():
    """Those of allowed origins, and the server's own."""
    served = Served(pointwise(), cors_origin=("https://app.example",))
    for origin in ("https://app.example", "http://localhost", "https://LOCALHOST"):
        assert served.post("/v2/rerank", QUESTION, headers={"Origin": origin}).status_code == 200
    both = [("Origin", "https://app.example"), ("Origin", "https://evil.example")]
    assert served.post("/v2/rerank", QUESTION, headers=both).status_code == 403


@pytest.mark.parametrize(
    "media_type", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"]
)
def test_json_by_its_other_names(served, media_type):
    """Other JSON media types are accepted."""
    done = served.ask("POST", "/rerank", content=json.dumps(QUESTION), headers={"Content-Type": media_type})
    assert done.status_code == 200


def test_a_null_field_counts_as_left_out(served):
    """Also for fields that determine the dialect; and 1.0 is 1."""
    nothing = {"top_n": None, "model": None, "texts": None, "chat_template_kwargs": None}
    done = served.post("/v2/rerank", QUESTION | nothing | {"top_n": 1.0})
    assert (done.status_code, done.json()["meta"]["api_version"]) == (200, {"version": "2"})
    assert len(done.json()["results"]) == 1
    done = served.post("/rerank", {"query": "q", "texts": ["worth 1"], "documents": None, "raw_scores": True})
    assert (done.status_code, done.json()) == (200, [{"index": 0, "score": 1.0}])


def test_a_poisoned_request_fails_alone():
    """Concurrent requests are answered."""

    def answer(prompt):
        return EngineError("cannot digest this") if "poison" in prompt.text else worth(prompt)

    served = Served(pointwise(answer))

    async def ask_all():
        async with served.client() as client:
            bodies = [QUESTION, QUESTION | {"documents": ["poison", "worth 1"]}, QUESTION]
            return await asyncio.gather(*(client.post("/v2/rerank", json=body) for body in bodies))

    dones = asyncio.run(ask_all())
    assert [done.status_code for done in dones] == [200, 422, 200]
    assert "cannot digest this" in message(dones[1])
    assert served.post("/rerank", {"query": "q", "texts": ["poison"]}).status_code == 424


def test_a_bug_is_answered_and_logged_without_texts():
    """Its location is logged but not its message, which may quote a document."""

    def answer(prompt):
        raise ValueError(f"cannot read {prompt.text}")

    served = Served(pointwise(answer))
    done = served.post("/v2/rerank", {"query": "secret question", "documents": ["secret text"]})
    assert done.status_code == 500
    assert done.headers["x-request-id"] in message(done)
    (line,) = served.lines
    assert (line["level"], line["status"]) == ("error", 500)
    assert line["error"].startswith("ValueError at ")
    assert "secret" not in served.stream.getvalue() + done.text
    assert served.desk.n_unfinished == 0


def test_logs_and_metrics_hold_no_text(served):
    """Of query, documents, model, path or headers."""
    body = {"query": "secret", "documents": ["secret worth 1"], "model": "secret", "secret": 1}
    served.post("/v2/rerank", body)
    served.post("/v2/rerank", body | {"model": "tiny"})
    served.ask("GET", "/secret", headers={"X-Request-Id": "secret text"})
    metrics = served.ask("GET", "/metrics").text
    assert "secret" not in served.stream.getvalue() + metrics
    assert 'rankllm_requests_total{dialect="cohere-v2",path="/v2/rerank",status="200"} 1.0' in metrics
    assert 'rankllm_rankings_total{status="ok"} 1.0' in metrics
    assert "rankllm_model_calls_total 1.0" in metrics
    assert [line["status"] for line in served.lines] == [404, 200, 404, 200]
    assert served.lines[1] | {"time": 0, "seconds": 0, "queued_s": 0, "computed_s": 0, "request_id": ""} == {
        **{"time": 0, "level": "info", "event": "request", "request_id": "", "method": "POST", "path": "/v2/rerank"},
        **{"status": 200, "seconds": 0, "dialect": "cohere-v2", "documents": 1, "ranking": "ok", "calls": 1},
        **{"prompt_tokens": 3, "completion_tokens": 0, "queued_s": 0, "computed_s": 0},
    }


def test_a_request_keeps_its_id(served):
    """If it is suitable for a log."""
    done = served.post("/v2/rerank", QUESTION, headers={"X-Request-Id": "trace-7.a_b"})
    assert (done.headers["x-request-id"], done.json()["id"]) == ("trace-7.a_b", "trace-7.a_b")
    assert served.post("/v2/rerank", QUESTION, headers={"X-Request-Id": 'a"b'}).headers["x-request-id"] != 'a"b'


def test_nothing_beyond_the_queue_is_accepted():
    """Further requests get 429 with a retry time; each accepted one is answered."""
    held = Held()
    served = Served(pointwise(held), max_queue=2)

    async def ask_all():
        async with served.client() as client:
            accepted = [asyncio.create_task(client.post("/rerank", json=QUESTION)) for _ in range(2)]
            await asyncio.to_thread(held.has_begun.wait, PATIENCE_S)
            refused = await client.post("/rerank", json=QUESTION)
            metrics = (await client.get("/metrics")).text
            held.may_go.set()
            return await asyncio.gather(*accepted), refused, metrics

    accepted, refused, metrics = asyncio.run(ask_all())
    assert [done.status_code for done in accepted] == [200, 200]
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert "rankllm_requests_unfinished 2.0" in metrics
    assert served.desk.n_unfinished == 0


def test_a_server_that_drains_answers_what_it_has_accepted():
    """And rejects others with 503; it is no longer ready, but alive."""
    held = Held()
    served = Served(pointwise(held))

    async def ask_all():
        async with served.client() as client:
            accepted = asyncio.create_task(client.post("/rerank", json=QUESTION))
            await asyncio.to_thread(held.has_begun.wait, PATIENCE_S)
            served.desk.is_draining = True
            others = [
                await client.post("/rerank", json=QUESTION),
                await client.get("/ready"),
                await client.get("/health"),
            ]
            held.may_go.set()
            return await accepted, others

    accepted, others = asyncio.run(ask_all())
    assert accepted.status_code == 200
    assert [done.status_code for done in others] == [503, 503, 200]


def test_a_request_whose_time_is_over_gets_504():
    """Also if its body does not arrive; later requests are answered."""
    held = Held()
    served = Served(pointwise(held), request_timeout_s=0.2)

    async def ask_all():
        async with served.client() as client:
            slow = await client.post("/v2/rerank", json=QUESTION)
            held.may_go.set()

            async def stalled():
                yield b"{"
                await asyncio.sleep(PATIENCE_S)

            return (
                slow,
                await client.post("/v2/rerank", content=stalled()),
                await client.post("/v2/rerank", json=QUESTION),
            )

    dones = asyncio.run(ask_all())
    assert [done.status_code for done in dones] == [504, 504, 200]
    assert "--request-timeout" in message(dones[0])


def test_a_client_that_leaves_frees_its_place_and_its_prompts():
    """Prompts that have not started are never run."""
    held = Held()
    served = Served(pointwise(held))
    served.desk.reranker.engine._batch_size = 1
    body = json.dumps(QUESTION | {"documents": ["worth 1"] * 10}).encode()
    messages = iter([{"type": "http.request", "body": body}, {"type": "http.disconnect"}])

    async def receive():
        message = next(messages)
        if message["type"] == "http.disconnect":
            await asyncio.to_thread(held.has_begun.wait, PATIENCE_S)
        return message

    async def send(message):
        pass

    scope = {"type": "http", "method": "POST", "path": "/rerank", "root_path": "", "query_string": b""}
    asyncio.run(served.app(scope | {"headers": [(b"host", b"localhost")]}, receive, send))
    assert served.desk.n_unfinished == 0
    held.may_go.set()
    assert served.post("/rerank", QUESTION).status_code == 200
    assert len(served.desk.reranker.engine.asked) <= 1 + 1 + 2
    assert [line["status"] for line in served.lines] == [499, 200]


def test_a_closed_reranker_is_no_service(served):
    """An error response, not a crash."""
    served.desk.reranker.close()
    assert served.post("/rerank", QUESTION).status_code == 503


def test_the_model_is_warmed_up_or_the_server_does_not_start():
    """One request with a full window."""
    served = Served(listwise())
    served.desk.warm_up()
    assert len(served.desk.reranker.engine.asked) == 1
    with pytest.raises(RankLLMError, match="lost"):
        Served(pointwise(lambda prompt: EngineError("lost"))).desk.warm_up()


def test_the_page_names_every_option_of_the_server():
    """docs/serving.md, in its table."""
    table = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8").partition("\n## Options\n")[2]
    for row in rows_of(ServerOptions).values():
        assert f"`{row.spelled}" in table


def test_the_page_names_the_versions_of_clients_that_are_tested():
    """docs/serving.md, and the pins in scripts/clients."""
    table = (REPOSITORY / "docs" / "serving.md").read_text(encoding="utf-8").partition("\n## Clients\n")[2]
    pins = "".join(path.read_text() for path in sorted((REPOSITORY / "scripts" / "clients").glob("*.in")))
    versions = re.findall(r"^(?!pytest)[\w-]+==(\S+)$", pins, re.MULTILINE)
    assert len(versions) == 8
    assert [version for version in versions if f"| {version} |" not in table] == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"port": 70000}, "from 0 to 65535"),
        ({"protect": ("metrics",)}, "--protect has no effect without --api-key-file"),
        ({"root_path": "x"}, "--root-path: expected a path such as"),
        ({"cors_origin": ("app.example",)}, "--cors-origin: expected an origin such as"),
        ({"max_queue": 0}, "max_queue: expected at least 1"),
    ],
)
def test_options_that_do_not_go_together(options, words):
    """Before anything is loaded."""
    with pytest.raises(ConfigError, match=words):
        ServerOptions(**options)

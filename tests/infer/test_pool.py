"""Many flows on one engine: no flow is blocked or lost, and scheduling never affects results."""

from __future__ import annotations

import math

import pytest
from ranking_fakes import (
    answer_by,
    docids,
    make_method,
    make_request,
    noisy,
    number,
    rerank,
    shown,
)

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.types import Result
from rankllm_infer.engines.base import Answer, EngineError, Prompt
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.scheduling.pool import FlowPool

REQUESTS = [make_request(f"q{i}", n) for i, n in enumerate([35, 0, 100, 1, 7, 20, 64, 3, 41, 12, 0, 90])]


def test_results_come_in_the_order_of_the_requests():
    """Short ones finish first and wait; empty ones need no engine."""
    for reverse in (False, True):
        engine = ScriptedEngine(answer_by(number), batch_size=3, reverse=reverse)
        results = rerank(engine, REQUESTS, make_method())
        assert [result.query.qid for result in results] == [request.query.qid for request in REQUESTS]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("max_active", [1, 3, 64])
def test_batching_never_shows_in_a_result(batch_size, reverse, max_active):
    """With an often wrong model, every result equals that of queries run one by one, one prompt at a time."""
    plan = make_method(size=8, stride=3, num_passes=2, with_trace=True, shuffle_seed=5)
    alone = [result for request in REQUESTS for result in rerank(ScriptedEngine(noisy, batch_size=1), [request], plan)]
    engine = ScriptedEngine(noisy, batch_size=batch_size, reverse=reverse)
    together = rerank(engine, REQUESTS, plan, max_active=max_active)
    assert together == alone
    assert {result.status for result in alone} >= {"ok", "fallback"}


def test_all_ready_windows_of_all_queries_go_to_the_engine_together():
    """Six queries with two windows each: two batches of six, not twelve of one."""
    engine = ScriptedEngine(answer_by(number), batch_size=64)
    rerank(engine, [make_request(f"q{i}", 30) for i in range(6)], make_method())
    assert engine.batches == [6, 6]


def test_a_query_that_the_engine_cannot_answer_loses_no_other():
    """It is returned in input order as failed, with its original candidates and the reason."""

    def answer(prompt):
        if "query q2" in prompt.text:
            return EngineError("the server gave up (500)")
        return answer_by(lambda text: -number(text))(prompt)

    requests = [make_request(f"q{i}", 30) for i in range(5)]
    results = rerank(ScriptedEngine(answer, batch_size=2), requests, make_method())
    assert [result.status for result in results] == ["ok", "ok", "failed", "ok", "ok"]
    assert results[2].error == "query 'q2': the server gave up (500)"
    assert docids(results[2]) == [f"d{i}" for i in range(30)]
    assert docids(results[3])[:10] == [f"d{i}" for i in range(29, 19, -1)]


def test_an_error_in_a_later_window_fails_the_whole_query():
    """A partial reranking would look like a complete one."""
    calls = 0

    def answer(prompt):
        nonlocal calls
        calls += 1
        return EngineError("lost") if calls == 2 else answer_by(lambda text: -number(text))(prompt)

    (result,) = rerank(ScriptedEngine(answer), [make_request("q", 30)], make_method())
    assert (result.status, result.error) == ("failed", "query 'q': lost")
    assert docids(result) == [f"d{i}" for i in range(30)]


def test_the_query_is_named_even_where_a_docid_is_spelt_like_it():
    """Query 'd1' and passage 'd1' are distinguished."""
    plan = make_method(template="rank_zephyr_alpha", card={"identifiers": "alpha", "answer": "first-token"})
    engine = ScriptedEngine(lambda prompt: Answer(scores=(1.0, math.nan)))
    (result,) = rerank(engine, [make_request("d1", 2)], plan)
    assert result.error == "query 'd1': the model's score of docid 'd1' is not a number (NaN)"


class Gauge:
    """Counts flows in progress, and requests whose results have not been yielded."""

    def __init__(self):
        self.unfinished = self.most_unfinished = self.held = self.most_held = 0

    def requests(self, sizes):
        """A request of each size, counted when taken."""
        for i, size in enumerate(sizes):
            self.unfinished += 1
            self.held += 1
            self.most_unfinished = max(self.most_unfinished, self.unfinished)
            self.most_held = max(self.most_held, self.held)
            yield make_request(f"q{i}", size)

    def finish(self, result):
        """One flow less."""
        self.unfinished -= 1

    def drain(self, results):
        """The results, counted as they are yielded."""
        taken = []
        for result in results:
            taken.append(result)
            self.held -= 1
        return taken


@pytest.mark.parametrize("max_active", [1, 2, 7])
def test_no_more_queries_are_unfinished_than_asked_for(max_active):
    """Requests are taken as others finish: a file of a million queries does not need memory for a million."""
    gauge = Gauge()
    pool = FlowPool(ScriptedEngine(noisy, batch_size=4, reverse=True), max_active=max_active)
    plan = make_method(size=8, stride=4)
    run = pool.run(gauge.requests([25] * 30), lambda r: plan.flow(r), on_finished=gauge.finish)
    assert len(gauge.drain(run)) == 30
    assert gauge.most_unfinished == max_active


@pytest.mark.parametrize(("n_windows", "n_full", "most_held"), [(15, 15, 8 + 14 * 7 + 8), (50, 18, 8 * 16)])
def test_a_long_query_leaves_the_others_all_slots_but_one(n_windows, n_full, most_held):
    """One query of many windows among 1,000 of one: seven finish at each step, and wait for their turn behind it.

    They count for nothing until there are so many that memory would grow: 16 for each that may be unfinished.
    """
    engine, gauge = ScriptedEngine(noisy, batch_size=8), Gauge()
    plan = make_method(size=2, stride=1)
    pool = FlowPool(engine, max_active=8)
    sizes = [n_windows + 1, *[2] * 1000]
    results = pool.run(gauge.requests(sizes), lambda r: plan.flow(r), on_finished=gauge.finish)
    assert [result.query.qid for result in gauge.drain(results)] == [f"q{i}" for i in range(1001)]
    assert engine.batches[:n_full] == [8] * n_full
    assert (gauge.most_unfinished, gauge.most_held) == (8, most_held)


def test_results_are_handed_on_before_all_requests_are_read():
    """An endless stream of requests yields results."""

    def endless():
        i = 0
        while True:
            yield make_request(f"q{i}", 5)
            i += 1

    pool = FlowPool(ScriptedEngine(answer_by(number)), max_active=4)
    results = pool.run(endless(), lambda r: make_method().flow(r))
    assert [next(results).query.qid for _ in range(10)] == [f"q{i}" for i in range(10)]


def test_a_flow_with_many_prompts_gets_its_answers_in_their_order():
    """In any order of answers; a failed prompt ends its flow, and later answers are dropped."""
    closed = []

    def flow(request):
        try:
            answers = yield tuple(Prompt(text=f"{request.query.qid} {i}", read="head") for i in range(6))
        finally:
            closed.append(request.query.qid)
        return Result(query=request.query, candidates=(), defects=tuple(answer.text for answer in answers))

    def answer(prompt):
        return EngineError("broken") if prompt.text == "q1 3" else Answer(text=prompt.text)

    engine = ScriptedEngine(answer, batch_size=4, reverse=True)
    results = list(FlowPool(engine).run([make_request(f"q{i}", 1) for i in range(3)], flow))
    assert [result.status for result in results] == ["ok", "failed", "ok"]
    assert results[2].defects == tuple(f"q2 {i}" for i in range(6))
    assert len(engine.asked) == 18
    assert sorted(closed) == ["q0", "q1", "q2"]


def test_each_result_is_told_as_soon_as_it_is_there():
    """Long before its turn in input order: finished work must not be lost when a run is killed."""
    finished = []
    pool = FlowPool(ScriptedEngine(answer_by(number), batch_size=64))
    requests = [make_request("long", 100), make_request("short", 5), make_request("empty", 0)]
    results = pool.run(requests, lambda r: make_method().flow(r), on_finished=finished.append)
    handed_on = list(results)
    assert [result.query.qid for result in finished] == ["empty", "short", "long"]
    assert [result.query.qid for result in handed_on] == ["long", "short", "empty"]
    assert sorted(map(id, finished)) == sorted(map(id, handed_on))


def test_no_requests_no_results():
    """An empty input finishes immediately."""
    assert rerank(ScriptedEngine(noisy), [], make_method()) == []


def test_answers_are_never_mixed_up_between_queries():
    """Each query's windows contain only its own passages."""
    requests = [make_request(f"q{i}", 25, doc=lambda j, i=i: {"text": f"d{i}x{j}"}) for i in range(8)]
    engine = ScriptedEngine(noisy, batch_size=3, reverse=True)
    rerank(engine, requests, make_method())
    for prompt in engine.asked:
        owners = {text.split("x")[0].removeprefix("d") for _, text in shown(prompt)}
        assert len(owners) == 1
        assert f"query q{owners.pop()}" in prompt.text


def test_an_engine_that_gives_nothing_ends_the_run():
    """For example a closed engine: previously the run waited forever."""

    class Silent(ScriptedEngine):
        def collect(self):
            return []

    with pytest.raises(RankLLMError, match="engine 'scripted' returns no answer to its 2 prompts"):
        rerank(Silent(noisy), [make_request("q1", 2), make_request("q2", 2)], make_method())


def test_a_pool_or_a_batch_of_nothing_is_refused():
    """It would never end."""
    with pytest.raises(ConfigError, match="max_active: expected at least 1, found 0"):
        FlowPool(ScriptedEngine(noisy), max_active=0)
    with pytest.raises(ConfigError, match="batch_size: expected at least 1, found 0"):
        ScriptedEngine(noisy, batch_size=0)

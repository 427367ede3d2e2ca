"""A reranker that is used twice at once says so at once; the first use goes on, and what is left half done frees it."""

from __future__ import annotations

import gc
import threading

import pytest
from ranking_fakes import answer_by, docids, make_method, make_request, number

from rankllm_core.errors import RankLLMError
from rankllm_infer.api import Reranker
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.ranking.pool import FlowPool

REQUESTS = [make_request(f"q{n}", 3) for n in range(5)]
REVERSED = ["d2", "d1", "d0"]
IN_USE = "in the middle of another run"


@pytest.fixture
def reranker():
    """It turns every list round, two prompts at a time."""
    engine = ScriptedEngine(answer_by(lambda text: -number(text)), batch_size=2)
    return Reranker(make_method(), engine)


def check(results, n=5):
    """All of them, right."""
    assert [docids(result) for result in results] == [REVERSED] * n


@pytest.mark.parametrize("use", ["rerank", "stream", "close"])
def test_a_second_use_is_refused_and_the_first_goes_on(reranker, use):
    """Before, both waited for ever for answers that the other had taken."""
    first = reranker.stream(REQUESTS)
    results = [next(first)]
    with pytest.raises(RankLLMError, match=IN_USE):
        {
            "rerank": lambda: reranker.rerank(REQUESTS),
            "stream": lambda: next(reranker.stream(REQUESTS)),
            "close": reranker.close,
        }[use]()
    check([*results, *first])
    check(reranker.rerank(REQUESTS))


def test_another_thread_is_refused_too(reranker):
    """While the first one is at work."""
    first = reranker.stream(REQUESTS)
    results = [next(first)]
    found = []

    def use():
        for act in (lambda: reranker.rerank(REQUESTS), reranker.close):
            try:
                act()
            except RankLLMError as error:
                found.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert [IN_USE in text for text in found] == [True, True]
    check([*results, *first])


def test_threads_that_start_together_end_together():
    """Each of them has all its results, or the one error."""
    engine = ScriptedEngine(answer_by(lambda text: -number(text)), batch_size=1)
    reranker = Reranker(make_method(), engine)
    barrier, outcomes = threading.Barrier(8), []

    def use():
        barrier.wait(10)
        try:
            outcomes.append([docids(result) for result in reranker.rerank(REQUESTS)])
        except RankLLMError as error:
            outcomes.append(IN_USE in str(error))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert len(outcomes) == 8
    assert all(outcome in (True, [REVERSED] * 5) for outcome in outcomes)
    assert [REVERSED] * 5 in outcomes


def test_use_inside_the_source_of_requests_is_refused(reranker):
    """A source that handles the error goes on; one that does not ends the run with it, and frees the reranker."""

    def source(*, handles):
        for request in REQUESTS:
            try:
                reranker.rerank([request])
            except RankLLMError:
                if not handles:
                    raise
            yield request

    check(reranker.rerank(source(handles=True)))
    with pytest.raises(RankLLMError, match=IN_USE):
        reranker.rerank(source(handles=False))
    check(reranker.rerank(REQUESTS))


def test_use_inside_on_finished_is_refused(reranker):
    """Likewise."""
    refused = []

    def finished(result):
        with pytest.raises(RankLLMError, match=IN_USE) as caught:
            reranker.rerank([make_request("x", 2)])
        refused.append(caught.value)

    check(reranker.stream(REQUESTS, on_finished=finished))
    assert len(refused) == 5
    with pytest.raises(RankLLMError, match=IN_USE):
        list(reranker.stream(REQUESTS, on_finished=lambda result: reranker.rerank([make_request("x", 2)])))
    check(reranker.rerank(REQUESTS))


@pytest.mark.parametrize("leave", ["close", "forget", "break", "raise"])
def test_a_stream_that_is_left_frees_its_reranker(reranker, leave):
    """However it is left."""
    stream = reranker.stream(REQUESTS)
    next(stream)
    if leave == "close":
        stream.close()
    elif leave == "break":
        for _ in stream:
            break
        del stream
    elif leave == "raise":

        def broken():
            yield make_request("x", 3)
            raise KeyboardInterrupt

        stream.close()
        with pytest.raises(KeyboardInterrupt):
            reranker.rerank(broken())
    else:
        del stream
    gc.collect()
    check(reranker.rerank(REQUESTS))
    reranker.close()


def test_a_stream_that_was_never_begun_holds_up_nobody(reranker):
    """It is begun by its first result."""
    later = reranker.stream(REQUESTS)
    check(reranker.rerank(REQUESTS))
    check(later)


def test_rerankers_do_not_get_in_each_others_way():
    """Two over engines of their own, in turns."""
    two = [Reranker(make_method(), ScriptedEngine(answer_by(lambda t: -number(t)))) for _ in range(2)]
    for pair in zip(*(reranker.stream(REQUESTS) for reranker in two), strict=True):
        check(pair, n=2)


def test_two_rerankers_over_one_engine_are_refused_as_one_is(reranker):
    """Answers go to whoever collects them."""
    other = Reranker(reranker.method, reranker.engine)
    first = reranker.stream(REQUESTS)
    results = [next(first)]
    with pytest.raises(RankLLMError, match=IN_USE):
        other.rerank(REQUESTS)
    check([*results, *first])


def test_a_closed_reranker_says_so(reranker):
    """Also where a block ends in the middle of a stream: it neither hangs nor passes for finished."""
    with reranker:
        stream = reranker.stream(REQUESTS)
        next(stream)
    with pytest.raises(RankLLMError, match="the reranker is closed"):
        list(stream)
    with pytest.raises(RankLLMError, match="the reranker is closed"):
        reranker.rerank(REQUESTS)
    reranker.close()


def test_one_pool_runs_once_at_a_time(reranker):
    """Its tickets are one run's."""
    pool = FlowPool(reranker.engine)
    runs = [pool.run(REQUESTS, lambda r: make_method().flow(r)) for _ in range(2)]
    results = [next(runs[0])]
    with pytest.raises(RankLLMError, match=IN_USE):
        next(runs[1])
    check([*results, *runs[0]])

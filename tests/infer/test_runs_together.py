"""Runs of one reranker overlap, in one thread or many: each gets its own results, and none waits forever."""

from __future__ import annotations

import gc
import threading

import pytest
from ranking_fakes import answer_by, docids, make_method, make_request, number

from rankllm_core.errors import RankLLMError
from rankllm_infer.api import Reranker
from rankllm_infer.engines.base import Answer
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.scheduling.pool import FlowPool

REQUESTS = [make_request(f"q{n}", 3) for n in range(5)]
REVERSED = ["d2", "d1", "d0"]
PATIENCE_S = 30


def by_reversal():
    """The answer that reverses a list."""
    return answer_by(lambda text: -number(text))


@pytest.fixture
def reranker():
    """It reverses every list, two prompts at a time."""
    return Reranker(make_method(), ScriptedEngine(by_reversal(), batch_size=2))


def check(results, n=5):
    """All results are present and correct."""
    assert [docids(result) for result in results] == [REVERSED] * n


def in_threads(*acts):
    """Results or exceptions of the functions, in order; all start together and must end."""
    barrier, outcomes = threading.Barrier(len(acts)), [None] * len(acts)

    def run(place, act):
        barrier.wait(PATIENCE_S)
        try:
            outcomes[place] = act()
        except BaseException as error:
            outcomes[place] = error

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in threads)
    return outcomes


@pytest.mark.parametrize("use", ["rerank", "stream"])
def test_a_second_run_may_begin_in_the_middle_of_the_first(reranker, use):
    """Neither takes the other's answers."""
    first = reranker.stream(REQUESTS)
    results = [next(first)]
    check(reranker.rerank(REQUESTS) if use == "rerank" else reranker.stream(REQUESTS))
    check([*results, *first])


def test_two_streams_are_read_in_turns(reranker):
    """Result by result, to their ends."""
    pairs = list(zip(reranker.stream(REQUESTS), reranker.stream(REQUESTS), strict=True))
    check([first for first, _ in pairs])
    check([second for _, second in pairs])


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_threads_share_the_engine(batch_size):
    """Eight runs at once, each with its own requests; each prompt is run once."""
    engine = ScriptedEngine(by_reversal(), batch_size=batch_size)
    reranker = Reranker(make_method(), engine)
    requests = [[make_request(f"t{thread}q{n}", 3) for n in range(20)] for thread in range(8)]
    outcomes = in_threads(*(lambda own=own: reranker.rerank(own) for own in requests))
    for own, results in zip(requests, outcomes, strict=True):
        assert [result.query.qid for result in results] == [request.query.qid for request in own]
        check(results, n=20)
    assert sorted(prompt.text for prompt in engine.asked) == sorted({prompt.text for prompt in engine.asked})
    assert len(engine.asked) == 8 * 20


class Gated(ScriptedEngine):
    """Its first step lasts until the gate is opened."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.is_at_work, self.gate = threading.Event(), threading.Event()

    def collect(self):
        if not self.is_at_work.is_set():
            self.is_at_work.set()
            assert self.gate.wait(PATIENCE_S)
        return super().collect()


def test_what_comes_during_a_step_stands_in_the_next_batch():
    """It is filled with prompts of both runs."""
    engine = Gated(by_reversal(), batch_size=10)
    reranker = Reranker(make_method(), engine)

    def late(qid):
        assert engine.is_at_work.wait(PATIENCE_S)
        threading.Timer(0.5, engine.gate.set).start()
        return reranker.rerank([make_request(qid, 3)])

    outcomes = in_threads(lambda: reranker.rerank(REQUESTS), lambda: late("a"), lambda: late("b"))
    assert [len(outcome) for outcome in outcomes] == [5, 1, 1]
    assert engine.batches == [5, 2]


def test_a_run_inside_the_source_of_requests(reranker):
    """A source may rerank before it yields a request."""

    def source():
        for request in REQUESTS:
            check(reranker.rerank([request]), n=1)
            yield request

    check(reranker.rerank(source()))


def test_a_run_inside_on_finished(reranker):
    """And so may a callback."""
    inner = []
    check(reranker.stream(REQUESTS, on_finished=lambda result: inner.extend(reranker.rerank([REQUESTS[0]]))))
    check(inner)


def test_two_rerankers_over_one_engine(reranker):
    """They share it like two runs of one reranker."""
    other = Reranker(reranker.method, reranker.engine)
    first = reranker.stream(REQUESTS)
    results = [next(first)]
    check(other.rerank(REQUESTS))
    check([*results, *first])


def test_closing_in_the_middle_of_a_run_is_refused(reranker):
    """The run continues; afterwards the reranker closes."""
    first = reranker.stream(REQUESTS)
    results = [next(first)]
    with pytest.raises(RankLLMError, match="cannot be closed while a run is in progress"):
        reranker.close()
    check([*results, *first])
    reranker.close()


@pytest.mark.parametrize("leave", ["close", "forget", "break", "raise"])
def test_a_stream_that_is_left_leaves_nothing_behind(reranker, leave):
    """However it is abandoned: none of its prompts is run later, and the reranker closes."""
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
    n_asked = len(reranker.engine.asked)
    check(reranker.rerank(REQUESTS))
    assert len(reranker.engine.asked) == n_asked + 5
    reranker.close()


class Interrupted(ScriptedEngine):
    """Its first step is interrupted, and its batch is lost."""

    error = KeyboardInterrupt()

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.is_hit = threading.Event()
        self.may_go_on = threading.Event()

    def collect(self):
        batch = super().collect()
        if not self.is_hit.is_set():
            self.is_hit.set()
            assert self.may_go_on.wait(PATIENCE_S)
            raise self.error
        return batch


def lead_and_follow(engine):
    """Outcomes of the thread that was in the engine when it was interrupted, and of one waiting for it."""
    reranker = Reranker(make_method(), engine)

    def follow():
        stream = reranker.stream(REQUESTS)
        assert engine.is_hit.wait(PATIENCE_S)
        threading.Timer(0.2, engine.may_go_on.set).start()
        return list(stream)

    return in_threads(lambda: reranker.rerank(REQUESTS), follow)


def test_an_interrupted_thread_takes_no_answers_with_it():
    """Ctrl-C in a notebook ends one run; prompts of others are run again."""
    leader, follower = lead_and_follow(Interrupted(by_reversal(), batch_size=64))
    assert isinstance(leader, KeyboardInterrupt)
    check(follower)


class Served(Interrupted):
    """Works in its own threads like a server: an interruption loses nothing, and cancellations persist."""

    takes_prompts_at_work = True

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.cancelled = set()

    def collect(self):
        if not self.is_hit.is_set():
            self.is_hit.set()
            assert self.may_go_on.wait(PATIENCE_S)
            raise self.error
        return [item for item in ScriptedEngine.collect(self) if item[0] not in self.cancelled]

    def cancel(self, tickets):
        self.cancelled.update(tickets)


def test_an_interruption_cancels_nothing_of_others_at_a_server():
    """A prompt cancelled and resubmitted under its ticket would never be answered."""
    leader, follower = lead_and_follow(Served(by_reversal(), batch_size=64))
    assert isinstance(leader, KeyboardInterrupt)
    check(follower)


def test_an_engine_that_fails_fails_all_who_wait_for_it():
    """Its prompts are lost; none of the runs waits forever."""
    engine = Interrupted(by_reversal(), batch_size=64)
    engine.error = RuntimeError("CUDA error: an illegal memory access was encountered")
    outcomes = lead_and_follow(engine)
    assert [type(outcome) for outcome in outcomes] == [RuntimeError, RuntimeError]


def test_a_closed_reranker_says_so(reranker):
    """Also if a block ends within a stream: it neither hangs nor appears finished."""
    with reranker:
        stream = reranker.stream(REQUESTS)
        next(stream)
    with pytest.raises(RankLLMError, match="the reranker is closed"):
        list(stream)
    with pytest.raises(RankLLMError, match="the reranker is closed"):
        reranker.rerank(REQUESTS)
    reranker.close()


def test_one_pool_runs_twice_at_once(reranker):
    """State belongs to a run, not to the pool."""
    pool = FlowPool(reranker.engine)
    first, second = (pool.run(REQUESTS, lambda r: make_method().flow(r)) for _ in range(2))
    results = [next(first)]
    check(second)
    check([*results, *first])


def test_a_failed_prompt_of_one_run_is_nothing_to_the_other():
    """Its query fails alone."""
    from rankllm_infer.engines.base import EngineError

    def answer(prompt):
        return EngineError("too long") if "poison" in prompt.text else by_reversal()(prompt)

    reranker = Reranker(make_method(), ScriptedEngine(answer, batch_size=4))
    first = reranker.stream(REQUESTS)
    results = [next(first)]
    (poisoned,) = reranker.rerank([make_request("poison", 3)])
    assert poisoned.status == "failed"
    check([*results, *first])


def test_an_answer_comes_to_its_own_run_alone():
    """Prompts with equal text are different prompts."""
    answers = iter(range(1000))
    reranker = Reranker(make_method(), ScriptedEngine(lambda prompt: Answer(text=f"[{1 + next(answers) % 3}]")))
    outcomes = in_threads(*(lambda: reranker.rerank(REQUESTS) for _ in range(4)))
    firsts = [docids(result)[0] for outcome in outcomes for result in outcome]
    assert sorted(firsts) == sorted([f"d{n % 3}" for n in range(20)])

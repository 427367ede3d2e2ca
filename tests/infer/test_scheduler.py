"""Requests come and go while others are in flight: futures, deadlines, cancellation, fairness and asyncio."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from ranking_fakes import answer_by, docids, make_method, make_request, number

from rankllm_core.errors import RankLLMError
from rankllm_infer.api import Reranker
from rankllm_infer.engines.base import Answer, EngineError, Prompt
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.engines.transformers.batches import BatchLimits, BatchQueue
from rankllm_infer.scheduling.scheduler import DeadlineError

PATIENCE_S = 30
REVERSED = ["d2", "d1", "d0"]


class Stepped(ScriptedEngine):
    """Takes the earliest tickets first, and performs a step when permitted."""

    def __init__(self, answer, *, batch_size=1, is_free=False):
        super().__init__(answer, batch_size=batch_size)
        self.steps = threading.Semaphore(0)
        self.is_free = is_free
        self.is_at_work = threading.Event()

    def collect(self):
        self.is_at_work.set()
        if not self.is_free:
            assert self.steps.acquire(timeout=PATIENCE_S)
        self._queue.sort(key=lambda item: item[0])
        return super().collect()

    def step(self, n=1):
        """Permit this many steps."""
        self.steps.release(n)


def by_reversal():
    """The answer that reverses a list."""
    return answer_by(lambda text: -number(text))


def check(result):
    """Ranked correctly."""
    assert (result.status, docids(result)) == ("ok", REVERSED)


def qids(engine):
    """Queries of the prompts run by the engine, in order."""
    return [next(word for word in prompt.text.split() if word.startswith(("long", "short"))) for prompt in engine.asked]


@pytest.fixture
def reranker():
    """Two prompts at a time, without delay."""
    with Reranker(make_method(), ScriptedEngine(by_reversal(), batch_size=2)) as reranker:
        yield reranker


def test_requests_are_futures(reranker):
    """From many threads at once."""
    futures = []
    threads = [
        threading.Thread(target=lambda n=n: futures.append(reranker.submit(make_request(f"q{n}", 3))))
        for n in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    results = [future.result(PATIENCE_S) for future in futures]
    for result in results:
        check(result)
    assert sorted(result.query.qid for result in results) == sorted(f"q{n}" for n in range(50))


def test_a_request_is_ranked_by_a_method_of_its_own(reranker):
    """The flow is created on submission and started in turn; other requests use the reranker's method."""
    backwards = make_method(size=2, stride=1)
    begun = []

    def start(request):
        begun.append(request.query.qid)
        return (yield from backwards.flow(request))

    futures = [reranker.submit(make_request("q", 3), start=start), reranker.submit(make_request("q", 3))]
    own, usual = (future.result(PATIENCE_S) for future in futures)
    assert begun == ["q"]
    assert (own.usage.calls, usual.usage.calls) == (2, 1)


def test_the_thread_ends_with_the_work(reranker):
    """And restarts with new work: an idle reranker has no thread."""
    for _ in range(3):
        check(reranker.submit(make_request("q", 3)).result(PATIENCE_S))
        deadline = time.monotonic() + PATIENCE_S
        while any(thread.name == "rankllm-scheduler" for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_submitted_requests_run_beside_a_stream(reranker):
    """While it is running."""
    stream = reranker.stream([make_request(f"s{n}", 3) for n in range(5)])
    check(next(stream))
    future = reranker.submit(make_request("q", 3))
    for result in stream:
        check(result)
    check(future.result(PATIENCE_S))


def test_a_cancelled_request_frees_its_slot_within_a_step():
    """Its queued prompts are never run."""
    engine = Stepped(by_reversal())
    with Reranker(make_method(size=2, stride=1), engine) as reranker:
        first = reranker.submit(make_request("long", 9))
        assert engine.is_at_work.wait(PATIENCE_S)
        second = reranker.submit(make_request("short", 3))
        assert first.cancel()
        engine.is_free = True
        engine.step(2)
        assert second.result(PATIENCE_S).status == "ok"
    assert qids(engine).count("long") <= 2
    assert first.cancelled()


def test_a_request_whose_time_is_over_raises():
    """At the end of the engine's step; concurrent requests continue."""
    engine = Stepped(by_reversal())
    with Reranker(make_method(size=2, stride=1), engine) as reranker:
        late = reranker.submit(make_request("long", 9), timeout_s=0.05)
        other = reranker.submit(make_request("short", 3), timeout_s=PATIENCE_S)
        time.sleep(0.1)
        engine.is_free = True
        engine.step(2)
        with pytest.raises(DeadlineError, match="query 'long': not finished before its deadline"):
            late.result(PATIENCE_S)
        assert other.result(PATIENCE_S).status == "ok"


def test_a_request_that_cannot_be_answered_fails_alone(reranker):
    """As a result with its reason; a bug in its flow is raised as an exception."""

    def answer(prompt):
        return EngineError("too long") if "poison" in prompt.text else by_reversal()(prompt)

    with Reranker(make_method(), ScriptedEngine(answer)) as reranker:
        futures = [reranker.submit(make_request(qid, 3)) for qid in ("a", "poison", "b")]
        a, poison, b = (future.result(PATIENCE_S) for future in futures)
        check(a)
        check(b)
        assert (poison.status, poison.error) == ("failed", "query 'poison': too long")
        broken = make_request("c", 3)
        object.__setattr__(broken.candidates[1], "doc", None)
        futures = [reranker.submit(request) for request in (broken, make_request("d", 3))]
        assert futures[0].exception(PATIENCE_S) is not None or futures[0].result().status == "failed"
        check(futures[1].result(PATIENCE_S))


def test_an_engine_that_fails_fails_what_it_was_given():
    """The next request is tried normally."""
    engine = ScriptedEngine(by_reversal())
    collect, engine.collect = engine.collect, lambda: (_ for _ in ()).throw(RuntimeError("the device is gone"))
    with Reranker(make_method(), engine) as reranker:
        with pytest.raises(RuntimeError, match="the device is gone"):
            reranker.submit(make_request("q", 3)).result(PATIENCE_S)
        engine.collect = collect
        check(reranker.submit(make_request("q", 3)).result(PATIENCE_S))


@pytest.mark.parametrize("kind", ["windows one after the other", "passages all at once"])
def test_a_long_request_does_not_delay_short_ones(kind):
    """Fifty prompts, and ten later requests of one prompt each: each of them runs within a few steps."""
    engine = Stepped(by_reversal())
    method = make_method(size=2, stride=1)
    if kind == "passages all at once":
        from ranking_fakes import PlainPairWriter

        from rankllm_core.card import PointwiseCard
        from rankllm_core.prompts.template import pointwise_template
        from rankllm_infer.ranking.pointwise import PointwiseMethod
        from rankllm_infer.ranking.settings import RankingSettings

        card = PointwiseCard(template=pointwise_template("rankllama"))
        method = PointwiseMethod(card, RankingSettings(), PlainPairWriter())
        engine = Stepped(lambda prompt: Answer(scores=(float(len(prompt.text)),)))
    with Reranker(method, engine) as reranker:
        long = reranker.submit(make_request("long", 51))
        assert engine.is_at_work.wait(PATIENCE_S)
        engine.step(3)
        while len(engine.asked) < 3:
            time.sleep(0.01)
        shorts = [reranker.submit(make_request(f"short{n}", 2 if "windows" in kind else 1)) for n in range(10)]
        time.sleep(0.1)
        engine.is_free = True
        engine.step()
        for future in (*shorts, long):
            assert future.result(PATIENCE_S).status in ("ok", "repaired")
    names = [prompt.text for prompt in engine.asked]
    last_short = max(place for place, text in enumerate(names) if "short" in text)
    # Three steps before they came, one under way; then they take turns with the long one.
    assert last_short <= 4 + 2 * 10


def test_closing_fails_what_is_unfinished():
    """At the end of a block; no caller waits forever."""
    engine = Stepped(by_reversal())
    with Reranker(make_method(), engine) as reranker:
        future = reranker.submit(make_request("q", 3))
        assert engine.is_at_work.wait(PATIENCE_S)
        with pytest.raises(RankLLMError, match="cannot be closed while"):
            reranker.close()
        engine.is_free = True
        threading.Timer(0.2, engine.step).start()
    outcome = future.exception(PATIENCE_S)
    assert outcome is None or "the reranker is closed" in str(outcome)
    with pytest.raises(RankLLMError, match="the reranker is closed"):
        reranker.submit(make_request("q", 3))


def test_closing_right_after_the_last_result(reranker):
    """The thread has not released the engine yet: another waiter for the result delays it."""
    future = reranker.submit(make_request("q", 3))
    future.add_done_callback(lambda _: time.sleep(0.2))
    assert future.result(PATIENCE_S).status == "ok"
    reranker.close()


@pytest.mark.parametrize("wrong", [None, "a text", [make_request("q", 3)]])
def test_what_is_no_request_is_one_line(reranker, wrong):
    """Before any prompt is run."""
    with pytest.raises(RankLLMError, match="request: expected a Request, found"):
        reranker.submit(wrong)


def test_asyncio_ranks_without_blocking_its_loop(reranker):
    """Results in input order, from a list and from an asynchronous source; many tasks at once."""

    async def source():
        for n in range(20):
            await asyncio.sleep(0)
            yield make_request(f"q{n}", 3)

    async def main():
        listed = await reranker.arerank([make_request(f"q{n}", 3) for n in range(20)])
        streamed = [result async for result in reranker.astream(source())]
        tasks = await asyncio.gather(*(reranker.arerank([make_request(f"t{n}", 3)]) for n in range(20)))
        return [*listed, *streamed, *(result for (result,) in tasks)]

    results = asyncio.run(main())
    names = [f"q{n}" for n in range(20)]
    assert [result.query.qid for result in results] == [*names, *names, *(f"t{n}" for n in range(20))]
    for result in results:
        check(result)


def test_cancelling_a_task_cancels_its_requests():
    """For example when a client disconnects."""
    engine = Stepped(by_reversal())

    async def main(reranker):
        task = asyncio.create_task(reranker.arerank([make_request(f"long{n}", 9) for n in range(3)]))
        while not engine.is_at_work.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        engine.is_free = True
        engine.step()
        (result,) = await reranker.arerank([make_request("short", 3)])
        assert result.status == "ok"

    with Reranker(make_method(size=2, stride=1), engine) as reranker:
        asyncio.run(main(reranker))
    assert sum("long" in name for name in qids(engine)) <= 3


def test_prompts_that_somebody_waits_for_go_first_in_their_order():
    """Before the longest; together with those that share their prefix, if worthwhile."""
    queue = BatchQueue(BatchLimits(max_prompts=2, max_tokens=1000))

    def prompt(*ids, n_shared=0):
        return Prompt(text="", read="head", token_ids=ids, n_shared=n_shared)

    for ticket, ids in {5: (1,) * 9, -3: (2, 2), -9: (3,), -1: (4,) * 5}.items():
        queue.add(ticket, prompt(*ids))
    assert [queue.take().tickets for _ in range(3)] == [(-3, -9), (-1,), (5,)]
    for ticket, ids in {-4: (7, 7, 1), -3: (8, 8, 1), -2: (7, 7, 2), -1: (8, 8, 2)}.items():
        queue.add(ticket, prompt(*ids, n_shared=2))
    batches = [queue.take() for _ in range(2)]
    assert [(batch.tickets, batch.n_shared) for batch in batches] == [((-4, -2), 2), ((-3, -1), 2)]
    assert len(queue) == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scores_beside_others_are_those_of_an_offline_run(tmp_path, smollm2_tokenizer, dtype):
    """Bit-identical in float32, where each prompt runs alone; within batch effects in bfloat16."""
    pytest.importorskip("torch")
    import tiny_models

    from rankllm_infer import RerankOptions, load_reranker, make_request

    tiny_models.save_classifier(tmp_path, smollm2_tokenizer)
    texts = [f"passage {'and on ' * (n % 5)}number {n}" for n in range(12)]
    requests = [make_request(f"query {n}", texts[n:] + texts[:n], qid=str(n)) for n in range(12)]
    with load_reranker(tmp_path, RerankOptions(device="cpu", dtype=dtype)) as reranker:
        offline = reranker.rerank(requests)
        stream = reranker.stream(requests)
        futures = [reranker.submit(request) for request in requests]
        beside = list(stream)
        online = [future.result(PATIENCE_S) for future in futures]
    for expected, *others in zip(offline, beside, online, strict=True):
        wanted = {candidate.docid: candidate.model_score for candidate in expected.candidates}
        for other in others:
            found = {candidate.docid: candidate.model_score for candidate in other.candidates}
            assert found == (wanted if dtype == "float32" else pytest.approx(wanted, abs=0.05))


def test_a_caller_counts_the_answers_to_its_own_request():
    """Nine candidates in windows of two with stride one: eight prompts. The other request counts its own."""
    counted = []
    with Reranker(make_method(size=2, stride=1), ScriptedEngine(by_reversal(), batch_size=2)) as reranker:
        futures = [reranker.submit(make_request(qid, n), on_answered=counted.append) for qid, n in (("a", 9), ("b", 2))]
        for future in futures:
            assert future.result(PATIENCE_S).status == "ok"
    assert sorted(counted) == ["a"] * 8 + ["b"]


def test_a_callback_that_raises_fails_its_own_request_alone():
    """With its error, immediately: its other prompts are not run."""
    engine = Stepped(by_reversal())

    def fail(qid):
        raise ValueError("no such counter")

    with Reranker(make_method(size=2, stride=1), engine) as reranker:
        bad = reranker.submit(make_request("long", 9), on_answered=fail)
        assert engine.is_at_work.wait(PATIENCE_S)
        good = reranker.submit(make_request("short", 3))
        engine.is_free = True
        engine.step(9)
        with pytest.raises(ValueError, match="no such counter"):
            bad.result(PATIENCE_S)
        assert good.result(PATIENCE_S).status == "ok"
    assert qids(engine).count("long") <= 2

"""A run interrupted anywhere and resumed asks the remaining prompts in identical batches."""

from __future__ import annotations

import hashlib

import pytest
from ranking_fakes import make_method, make_request, shown

from rankllm_core.types import Result, Usage
from rankllm_infer.engines.base import Answer, EngineError, Prompt
from rankllm_infer.jobs.journal import Journal
from rankllm_infer.scheduling.pool import FlowPool

REQUESTS = [make_request(f"q{i}", n) for i, n in enumerate([25, 0, 30, 1, 7, 20, 14, 3, 21, 12, 0, 20])]


class Killed(BaseException):
    """Stops a test's run like a kill: nothing handles it."""


class BatchedEngine:
    """Like the transformers engine: longest prompts first, and the answers depend on the rest of the batch."""

    name = "batched"
    takes_prompts_at_work = False

    def __init__(self, *, batch_size, n_batches=10**6):
        self.batches = []
        self._batch_size = batch_size
        self._n_batches = n_batches
        self._queue = []

    def submit(self, ticket, prompt):
        """Queue a prompt."""
        self._queue.append((ticket, prompt))

    def collect(self):
        """Answer a batch depending on its contents; raise `Killed` if it would be one more than `n_batches`."""
        if len(self.batches) == self._n_batches:
            raise Killed
        self._queue.sort(key=lambda item: (len(item[1].text), -item[0]))
        batch = [self._queue.pop() for _ in range(min(self._batch_size, len(self._queue)))]
        texts = tuple(prompt.text for _, prompt in batch)
        self.batches.append(texts)
        return [(ticket, self._answer(prompt, texts)) for ticket, prompt in batch]

    def _answer(self, prompt, texts):
        if "query q5" in prompt.text:
            return EngineError("lost")
        labels = [label for label, _ in shown(prompt)] or prompt.identifiers
        ranked = sorted(labels, key=lambda label: hashlib.sha256(repr((label, texts)).encode()).digest())
        return Answer(text=" > ".join(f"[{label}]" for label in ranked), usage=Usage(calls=1))

    def cancel(self, tickets):
        """Drop queued prompts."""
        self._queue = [item for item in self._queue if item[0] not in set(tickets)]

    def close(self):
        """Nothing to release."""


def listwise(request):
    """Windows one after the other."""
    return make_method(size=8, stride=3, with_trace=True).flow(request)


def all_at_once(request):
    """A flow of two steps with many prompts each, like pointwise and partitioning ones."""
    said = []
    for step in range(2):
        answers = yield tuple(
            Prompt(text=f"query {request.query.qid} step {step} {c.docid} {said[-1:]}", read="head", identifiers=("1",))
            for c in request.candidates
        ) or (Prompt(text="nobody", read="head"),)
        said.append([answer.text for answer in answers])
        said.append(hashlib.sha256(repr(answers).encode()).hexdigest())
    return Result(query=request.query, candidates=request.candidates, defects=(said[-1],))


def run(engine, flow, journal=None):
    """Run all requests, four at a time."""
    if journal is None:
        return list(FlowPool(engine, max_active=4).run(REQUESTS, flow))
    journal.begin({"only": "run"})
    return list(FlowPool(engine, max_active=4, log=journal).run(REQUESTS, flow, on_finished=journal.add))


@pytest.mark.parametrize("flow", [listwise, all_at_once])
def test_a_run_gone_on_with_asks_the_batches_that_were_left(tmp_path, flow):
    """Wherever it was interrupted: the same results as an uninterrupted run, although answers depend on their batch."""
    whole = BatchedEngine(batch_size=3)
    expected = run(whole, flow)
    assert [result.status for result in expected].count("failed") == 1
    step = max(1, len(whole.batches) // 12)
    for n_batches in range(0, len(whole.batches), step):
        path = tmp_path / f"journal{n_batches}"
        first = BatchedEngine(batch_size=3, n_batches=n_batches)
        with pytest.raises(Killed), Journal(path) as journal:
            run(first, flow, journal)
        second = BatchedEngine(batch_size=3)
        with Journal(path) as journal:
            finished = [request.query.qid for request in REQUESTS if journal.is_finished(request.query.qid)]
            given = run(second, flow, journal)
            assert [journal.result(request) for request in REQUESTS] == expected
        assert first.batches + second.batches == whole.batches
        # What was finished is not handed on again; all else is, in order.
        assert given == [result for result in expected if result.query.qid not in finished]


def test_a_run_may_be_broken_off_again_and_again(tmp_path):
    """One batch at a time."""
    whole = BatchedEngine(batch_size=3)
    expected = run(whole, listwise)
    batches = []
    for _ in whole.batches:
        engine = BatchedEngine(batch_size=3, n_batches=1)
        with Journal(tmp_path / "journal") as journal:
            try:
                run(engine, listwise, journal)
            except Killed:
                batches += engine.batches
                continue
            batches += engine.batches
            assert [journal.result(request) for request in REQUESTS] == expected
    assert batches == whole.batches


def test_queries_that_failed_are_asked_again_when_they_are_forgotten(tmp_path):
    """And nothing else is."""
    path = tmp_path / "journal"
    with Journal(path) as journal:
        run(BatchedEngine(batch_size=3), listwise, journal)
    with Journal(path) as journal:
        journal.forget_failed()
        engine = BatchedEngine(batch_size=3)
        (result,) = run(engine, listwise, journal)
        assert result.query.qid == "q5"
        assert all("query q5" in text for batch in engine.batches for text in batch)


def test_a_query_that_failed_is_asked_nothing_more():
    """Its remaining prompts, queued in the engine, are dropped."""
    asked = []

    class Failing(BatchedEngine):
        def _answer(self, prompt, texts):
            asked.append(prompt.text)
            return EngineError("lost")

    (result,) = FlowPool(Failing(batch_size=3)).run([make_request("q0", 30)], all_at_once)
    assert result.status == "failed"
    assert len(asked) == 3


class DyingJournal(Journal):
    """A journal whose process is killed after this many batches."""

    def __init__(self, path, *, n_batches):
        super().__init__(path)
        self.n_batches_left = n_batches

    def keep(self, answers):
        """Record a batch; raise `Killed` if it was the last one."""
        super().keep(answers)
        self.n_batches_left -= 1
        if not self.n_batches_left:
            raise Killed


@pytest.mark.parametrize(
    "options", [{"use_logits": True, "use_alpha": True, "window_size": 5, "stride": 3}, {"method": "pointwise"}]
)
def test_a_model_gives_the_same_results_to_the_bit(tmp_path, tiny_causal, options):
    """In bfloat16, where a score depends on the rest of its batch."""
    from rankllm_infer.api import load_reranker
    from rankllm_infer.options import RerankOptions

    requests = [make_request(f"q{n}", n) for n in (9, 2, 11, 5)]
    with load_reranker(tiny_causal, RerankOptions(dtype="bfloat16", batch_size=3, **options)) as reranker:
        expected = reranker.rerank(requests)
        for n_batches in (1, 2, 3):
            path = tmp_path / f"journal{n_batches}"
            with DyingJournal(path, n_batches=n_batches) as journal:
                journal.begin({"only": "run"})
                with pytest.raises(Killed):
                    list(reranker.stream(requests, on_finished=journal.add, log=journal))
            with Journal(path) as journal:
                assert journal.n_finished or any(journal.recall(request.query.qid, 0) for request in requests)
                journal.begin({"only": "run"})
                list(reranker.stream(requests, on_finished=journal.add, log=journal))
                assert [journal.result(request) for request in requests] == expected

"""The whole of `rerank` over a file's worth of requests, with an engine whose answers come from a function."""

from __future__ import annotations

from contextlib import contextmanager

from ranking_fakes import make_method, make_request, noisy

from rankllm_infer.api import Reranker
from rankllm_infer.console import SCREEN, show_report
from rankllm_infer.engines.base import EngineError
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.jobs import rerank as rerank_job
from rankllm_infer.jobs.outputs import OutputFiles
from rankllm_infer.options import RerankOptions
from rankllm_infer.plan import plan_reranking

REQUESTS = [make_request(f"q{i}", n) for i, n in enumerate([5, 12, 1, 8, 0, 9, 20, 6])]
OPTIONS = RerankOptions(engine="openai", base_url="http://127.0.0.1:9/v1", window_size=4, stride=2)
"""A server's, of which nothing is asked before the model is loaded."""
NAMES = ("out.trec", "out.jsonl", "trace.jsonl")


class Killed(BaseException):
    """What stops a run, as a kill does: nobody handles it."""


def output_files(folder):
    """All three outputs, in a folder."""
    return OutputFiles(**dict(zip(("run", "results", "trace"), (folder / name for name in NAMES), strict=True)))


def journal_of(folder):
    """The journal beside them."""
    return folder / "out.trec.journal.jsonl"


def failing(prompt):
    """One query fails."""
    return EngineError("lost") if "query q3" in prompt.text else noisy(prompt)


def killed_after(n, answer=noisy):
    """Answers so many prompts, then the process is killed."""
    left = iter(range(n))

    def answering(prompt):
        if next(left, None) is None:
            raise Killed
        return answer(prompt)

    return answering


def rerank(monkeypatch, folder, *, answer=noisy, resume=False, overwrite=False, requests=REQUESTS, options=OPTIONS):
    """Run the command's work in this process; gives the exit status."""

    @contextmanager
    def load_scripted(plan, watcher):
        card = plan.card.card
        method = make_method(size=card.window_size, stride=card.stride, with_trace=True)
        yield Reranker(method, ScriptedEngine(answer, batch_size=3))

    monkeypatch.setattr(rerank_job, "load_model", load_scripted)
    files = output_files(folder)
    with rerank_job.open_run(files, overwrite=overwrite, resume=resume, watcher=SCREEN) as run:
        run.read(requests)
        report = run.rerank(plan_reranking("m", options))
        show_report(report)
    return 3 if report.summary.failures else 0


def contents(folder):
    """What the outputs hold, of those that are there."""
    return {name: (folder / name).read_bytes() for name in NAMES if (folder / name).exists()}

"""CPU seconds that rankllm itself takes: a scripted run, the writing of prompts, start-up, and the demo beside them.

With the Python of a second checkout, both are measured in one go, taking turns, so that other work on the machine slows
both alike. What is compared is CPU time, user and system, not time on the clock.

    uv run --package rankllm-infer --group demo python scripts/bench/overhead.py [--against OTHER/.venv/bin/python]

- `run`: what `rerank` does with a requests file, from its check to the outputs, with a scripted engine and the journal.
- `listwise`, `yes-no`, `joined`: prompts of the demo collection's queries, 20 passages each, by SmolLM2's tokenizer.
- `... --help` (of each program that is installed) and `demo`: the whole process.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click
from bench_machine import describe_machine

PASSAGE = "a passage of some length " * 80
"""2,000 bytes."""
N_CANDIDATES = 20
PROMPTS = {"listwise": "rank_zephyr", "yes-no": "yes_no", "joined": "rankllama"}
"""Rows that write prompts, and their templates."""
PASSES = 2
"""Number of times the prompts of all queries are written in one measurement."""


def scripted_run(n_queries: int) -> float:
    """CPU seconds of a run over this many queries with 20 candidates each."""
    from rankllm_core.data.records import write_requests
    from rankllm_core.files import write_text
    from rankllm_core.types import Candidate, Query, Request, Result, Usage
    from rankllm_infer.engines.base import Answer, Prompt
    from rankllm_infer.engines.scripted import ScriptedEngine
    from rankllm_infer.evaluation.evaluate import RunningEvaluation
    from rankllm_infer.jobs.fingerprint import InputDigest, StoredRequests, check_requests
    from rankllm_infer.jobs.journal import Journal
    from rankllm_infer.jobs.outputs import OutputFiles, open_outputs
    from rankllm_infer.scheduling.pool import FlowPool

    def flow(request: Request) -> Any:
        (answer,) = yield (Prompt(text=PASSAGE, read="text"),)
        return Result(query=request.query, candidates=request.candidates, usage=answer.usage)

    candidates = tuple(Candidate(docid=f"d{i}", score=float(-i), doc={"text": PASSAGE}) for i in range(N_CANDIDATES))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        queries = (Query(qid=f"q{number}", text=f"question {number}") for number in range(n_queries))
        write_requests(folder / "requests.jsonl", (Request(query=query, candidates=candidates) for query in queries))
        began = time.process_time()
        requests = StoredRequests(folder / "requests.jsonl", is_pairs=False, max_queries=None)
        files = OutputFiles(run=folder / "run", results=folder / "results", trace=folder / "trace")
        engine = ScriptedEngine(lambda prompt: Answer(text="[1]", usage=Usage(calls=1)))
        engine.asked, engine.batches = deque(maxlen=0), deque(maxlen=0)  # type: ignore[assignment]  # keep nothing
        qids = check_requests(requests, files, strict=True, digest=(digest := InputDigest()))
        figures = RunningEvaluation({qid: {"d1": 1} for qid in qids}, ["nDCG@10"])
        with Journal(folder / "journal") as journal:
            journal.begin({"input": str(digest)})
            for _ in FlowPool(engine, log=journal).run(requests, flow, on_finished=journal.add):
                pass
            with open_outputs(files) as writer:
                for request in requests:
                    result = journal.result(request)
                    writer.write(result)
                    figures.add(result.query.qid, [(c.docid, c.score) for c in result.candidates])
        with write_text(folder / "figures") as stream:
            stream.write(str(figures.result()))
        return time.process_time() - began


def prompt_writing(what: str) -> Callable[[], float]:
    """A measurement: CPU milliseconds per query to write its prompts from its request."""
    from transformers import AutoTokenizer

    from rankllm_core.card import ListwiseCard, PointwiseCard
    from rankllm_core.prompts.template import load_template
    from rankllm_infer.checkpoints.demo_model import demo_model_path
    from rankllm_infer.demo.collection import load_demo_collection
    from rankllm_infer.demo.run import demo_requests
    from rankllm_infer.plan import make_method
    from rankllm_infer.ranking.settings import RankingSettings

    requests = demo_requests(load_demo_collection(), depth=N_CANDIDATES)
    tokenizer = AutoTokenizer.from_pretrained(demo_model_path(), trust_remote_code=False)
    template: Any = load_template(PROMPTS[what])
    if what == "listwise":
        card: Any = ListwiseCard(template=template)
    else:
        card = PointwiseCard(template=template, head="yes-no" if what == "yes-no" else "sequence-classification")
    method = make_method(card, RankingSettings(), tokenizer)

    def measure() -> float:
        began = time.process_time()
        for request in requests * PASSES:
            next(method.flow(request))
        return (time.process_time() - began) * 1000 / PASSES / len(requests)

    return measure


def work(what: str, n_queries: int) -> None:
    """Measure one row for each line of input, so that imports and caches are excluded."""
    measure = prompt_writing(what) if what in PROMPTS else lambda: scripted_run(n_queries)
    for _ in sys.stdin:
        print(measure(), flush=True)


class Worker:
    """Measures one row with the packages of one Python interpreter."""

    def __init__(self, python: str, what: str, n_queries: int) -> None:
        self._folder = Path(python).absolute().parent
        self._what = what
        self._process: subprocess.Popen[str] | None = None
        if what == "run" or what in PROMPTS:
            command = [python, __file__, "--queries", str(n_queries), "--work", what]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self) -> float:
        """One number: milliseconds per query for prompts, seconds otherwise."""
        if self._process is None:
            with tempfile.TemporaryDirectory() as folder:
                more = ["--output-dir", folder] if self._what == "demo" else []
                program, *arguments = ["rankllm-infer", "demo"] if self._what == "demo" else self._what.split()
                return process_s([str(self._folder / program), *arguments, *more])
        print("again", file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())  # type: ignore[union-attr]  # it was opened as a pipe

    def close(self) -> None:
        """Stop the process."""
        if self._process is not None:
            self._process.communicate()


def process_s(command: Sequence[str]) -> float:
    """CPU seconds of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def row_names() -> list[str]:
    """The rows that can be measured in this environment."""
    programs = [name for name in ("rankllm-infer", "rankllm-train") if (Path(sys.executable).parent / name).exists()]
    return ["run", *PROMPTS, *(f"{name} --help" for name in programs), "demo"]


@click.command()
@click.option(
    "--against",
    type=click.Path(exists=True),
    help="Python executable of another checkout's environment to compare with.",
)
@click.option(
    "--queries", "n_queries", default=10_000, show_default=True, help="Number of queries in the scripted run."
)
@click.option("--repeats", default=5, show_default=True)
@click.option("--row", "rows", multiple=True, help="Measure only this row, such as `demo`.  [default: all]")
@click.option("--work", "what", hidden=True, help="Measure this row for another process.")
def main(against: str | None, n_queries: int, repeats: int, rows: tuple[str, ...], what: str | None) -> None:
    """Print the median of each measurement and, with --against, the ratio to the other checkout."""
    if what is not None:
        work(what, n_queries)
        return
    # Set order differs between processes, and pytrec_eval searches a set for every evaluator.
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    print(describe_machine(1))
    print("\n| | unit | CPU | lowest-highest | other | lowest-highest | ratio |\n|---|---|---|---|---|---|---|")
    for row in rows or row_names():
        workers = [Worker(python, row, n_queries) for python in (sys.executable, against) if python]
        found: list[list[float]] = [[] for _ in workers]
        for turn in range(repeats + 1):
            for place in range(len(workers))[:: 1 if turn % 2 else -1]:
                found[place].append(workers[place].measure())
        for worker in workers:
            worker.close()
        print_row(row, [numbers[1:] for numbers in found])  # the first round fills the caches


def print_row(what: str, found: Sequence[Sequence[float]]) -> None:
    """Print medians and spread for this checkout and, if given, the other one."""
    unit = "ms a query" if what in PROMPTS else "s"
    cells = [cell for numbers in found for cell in (f"{median(numbers):.3f}", f"{min(numbers):.3f}-{max(numbers):.3f}")]
    ratio = f"{median(found[0]) / median(found[1]):.3f}" if len(found) > 1 else ""
    print(f"| {what} | {unit} | {' | '.join((*cells, '', '')[:4])} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()

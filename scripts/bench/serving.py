"""The same requests answered by `rankllm-infer serve`, offline, and by CrossEncoder behind FastAPI, in one run.

A closed loop: each client sends its next request when it has its answer. Clients (locust's) use core 1, the ranking
process core 0 with one thread. Every passage is used once. SmolLM2-135M gets a score head drawn from a seed: this is
about speed, not quality.

uv run --package rankllm-infer --group demo --extra serve --with sentence-transformers==6.2.0 --with fastapi==0.141.1 \
  --with locust==2.47.0 python scripts/bench/serving.py --data trec_dl21 --run trec_dl21/runs/BM25.run.gz --cache DIR
"""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import click
from bench_machine import describe_machine
from pointwise import make_model

HERE = Path(__file__).parent
OURS, THEIRS = "rankllm serve", "CrossEncoder behind FastAPI"
RANKER_CORE, CLIENT_CORE = 0, 1
_READY_S = 300


@dataclass(frozen=True)
class Answers:
    """Results of the requests: total seconds, seconds per request, scores per request by document position."""

    seconds: float
    latencies: tuple[float, ...]
    scores: tuple[tuple[float, ...], ...]

    @property
    def p99(self) -> float:
        """The 99th percentile of the latency in seconds."""
        return quantiles(self.latencies, n=100, method="inclusive")[98]


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--run", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--cache", type=click.Path(path_type=Path), required=True, help="Folder for the model with its head.")
@click.option("--clients", default="1,8,32,128", show_default=True)
@click.option("--documents", default=5, show_default=True, help="Documents per request.")
@click.option("--rounds", default=2, show_default=True, help="Minimum number of requests per client.")
@click.option("--least", default=48, show_default=True, help="Minimum number of requests per measurement.")
@click.option(
    "--against-clients", default=32, show_default=True, help="Number of clients in the comparison with CrossEncoder."
)
@click.option("--parts", default="offline,against,float32", show_default=True)
def main(
    data: Path,
    run: Path,
    cache: Path,
    clients: str,
    documents: int,
    rounds: int,
    least: int,
    against_clients: int,
    parts: str,
) -> None:
    """Print one table per part."""
    model = make_model(cache)
    bodies = make_bodies(data, run, n_documents=documents)
    print(f"{len(bodies)} requests of {documents} distinct passages; {describe_machine(1)}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "offline" in parts:
            counts = [(int(n), bodies[: max(rounds * int(n), least)]) for n in clients.split(",")]
            compare_offline(folder, model, counts, dtype="bfloat16")
        if "float32" in parts:
            compare_offline(folder, model, [(8, bodies[:16])], dtype="float32")
        if "against" in parts:
            compare_wrapper(folder, model, against_clients, bodies[: rounds * against_clients])


def make_bodies(data: Path, run: Path, *, n_documents: int) -> list[dict[str, Any]]:
    """Cohere API requests for the run's passages, each passage once."""
    from rankllm_core.text import title_and_text
    from rankllm_infer.formats.prepare import build_requests

    requests, _ = build_requests(run, queries=data / "queries.tsv", corpus=data / "corpus.jsonl.gz", depth=100)
    by_query: list[list[dict[str, Any]]] = []
    seen: set[str] = set()
    for request in requests:
        texts = []
        for candidate in request.candidates:
            text = " ".join(title_and_text(candidate.doc)).strip()
            if text not in seen:
                seen.add(text)
                texts.append(text)
        groups = [texts[start : start + n_documents] for start in range(0, len(texts) - n_documents + 1, n_documents)]
        query = request.query.text
        by_query.append([{"query": query, "documents": group, "raw_scores": True} for group in groups])
    # Requests of different queries alternate, as on a real server.
    return [body for turn in itertools.zip_longest(*by_query) for body in turn if body is not None]


def compare_offline(
    folder: Path, model: str, counts: Sequence[tuple[int, list[dict[str, Any]]]], *, dtype: str
) -> None:
    """Compare requests per second of `serve` with `rerank` at the same concurrency, and the difference of their
    scores.
    """
    print(f"\n{dtype}\n\n| clients | requests | offline requests/s | served requests/s | of offline | p50 s | p99 s "
          "| largest difference of a score |\n|---|---|---|---|---|---|---|---|", flush=True)  # fmt: skip
    with server(OURS, model, dtype) as url, offline(model, dtype) as rank:
        for n_clients, bodies in counts:
            alone = rank(bodies, n_clients)
            served = load(folder, url, bodies, n_clients)
            rates = [len(bodies) / found.seconds for found in (alone, served)]
            print(
                f"| {n_clients} | {len(bodies)} | {rates[0]:.2f} | {rates[1]:.2f} | {rates[1] / rates[0]:.0%} "
                f"| {median(served.latencies):.2f} | {served.p99:.2f} | {largest_gap(alone, served):.1e} |",
                flush=True,
            )


def largest_gap(some: Answers, others: Answers) -> float:
    """The largest difference of a score."""
    pairs = zip(sum(some.scores, ()), sum(others.scores, ()), strict=True)
    return max(abs(one - other) for one, other in pairs)


def compare_wrapper(folder: Path, model: str, n_clients: int, bodies: list[dict[str, Any]]) -> None:
    """Compare requests per second and latency with this many clients."""
    print(f"\n{n_clients} clients, {len(bodies)} requests\n\n| server | dtype | requests/s | p50 s | p99 s "
          "| times CrossEncoder |\n|---|---|---|---|---|---|", flush=True)  # fmt: skip
    base: dict[str, float] = {}
    for way, dtype in ((THEIRS, "float32"), (THEIRS, "bfloat16"), (OURS, "bfloat16")):
        with server(way, model, dtype) as url:
            load(folder, url, bodies[:4], 2)  # compilation and allocation at first use are not counted
            found = load(folder, url, bodies, n_clients)
        rate = len(bodies) / found.seconds
        base.setdefault(dtype, rate)
        times = ", ".join(f"{rate / theirs:.2f} ({name})" for name, theirs in base.items())
        p50 = median(found.latencies)
        print(f"| {way} | {dtype} | {rate:.2f} | {p50:.2f} | {found.p99:.2f} | {times} |", flush=True)


@contextmanager
def server(way: str, model: str, dtype: str) -> Iterator[str]:
    """Start a server on its core and return its URL when it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, str(HERE / "serving_wrapper.py"), model, dtype, str(port)]
    if way == OURS:
        words = [str(Path(sys.executable).with_name("rankllm-infer")), "serve", "--model-path", model]
        words += ["--dtype", dtype, "--device", "cpu", "--port", str(port)]
    # A file: nobody reads a pipe, and a server that logs to a full one waits for ever.
    with tempfile.TemporaryFile("w+") as log, started(words, stderr=log) as process:
        began = time.monotonic()
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None or time.monotonic() - began > _READY_S:
                log.seek(0)
                raise click.ClickException(f"{way} did not start: {log.read()}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def offline(model: str, dtype: str) -> Iterator[Any]:
    """A process that ranks without a server: a function of the requests and the number in flight."""
    words = [sys.executable, str(HERE / "serving_offline.py"), model, dtype]
    with started(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:

        def rank(bodies: list[dict[str, Any]], n_clients: int) -> Answers:
            process.stdin.write(json.dumps([bodies, n_clients]) + "\n")
            process.stdin.flush()
            seconds, scores = json.loads(process.stdout.readline())
            return Answers(seconds, (), tuple(map(tuple, scores)))

        process.stdout.readline()  # the model is loaded
        yield rank


@contextmanager
def started(words: list[str], **pipes: Any) -> Iterator[Any]:
    """A process with one thread on the ranker's core, which is stopped at the end of the block."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.Popen(["taskset", "-c", str(RANKER_CORE), *words], env=environment, text=True, **pipes)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def load(folder: Path, url: str, bodies: list[dict[str, Any]], n_clients: int) -> Answers:
    """Send the requests and return the clients' measurements."""
    (folder / "bodies.json").write_text(json.dumps(bodies))
    environment = os.environ | {"LOAD_FOLDER": str(folder)}
    words = ["-m", "locust", "-f", str(HERE / "serving_clients.py"), "--headless", "--only-summary", "-H", url]
    done = subprocess.run(
        ["taskset", "-c", str(CLIENT_CORE), sys.executable, *words, "-u", str(n_clients), "-r", str(n_clients)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(
            f"locust: {re.sub(r'(?s)^.*Error report', 'Error report', done.stderr + done.stdout)}"
        )
    found = json.loads((folder / "answers.json").read_text())
    order = sorted(found, key=lambda item: item["place"])
    scores = []
    for item in order:
        by_index = {result["index"]: result["relevance_score"] for result in item["results"]}
        scores.append(tuple(by_index[index] for index in sorted(by_index)))
    seconds = max(item["ended"] for item in found) - min(item["began"] for item in found)
    return Answers(seconds, tuple(item["ended"] - item["began"] for item in order), tuple(scores))


if __name__ == "__main__":
    main()

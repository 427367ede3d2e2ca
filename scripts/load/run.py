"""Load test: overload, then mixed traffic. Prints what was observed; status 1 if a promise was broken.

Promises: no accepted request is lost, others are rejected immediately with a retry time, nobody waits longer than the
queue allows, memory stays flat, and nothing remains when the clients are gone. See docs/serving.md.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import click
from random_model import save_random_model
from served import MemoryWatch, Served, serving
from traffic import Seen, closed_loop, equal_bodies, errands, largest_errand, open_loop, run_errands

PARTS = ("overload", "mixed")
OVERLOAD = 4
"""Ratio of arrival rate to the server's capacity."""
QUEUE = 16
WARM_UP = 0.3
"""Fraction of samples skipped before comparing memory: allocators keep what requests of all sizes needed."""
MOST_GROWTH = 0.02
GRACE_S = 2.0
"""Time that a response may take beyond its turn in the queue."""
AT_ONCE_S = 1.0


@click.command()
@click.option("--seconds", default=60.0, show_default=True, help="Seconds for each of the two parts.")
@click.option("--model", help="Model to serve  [default: a small one with random weights, which answers many requests]")
@click.option("--clients", "n_clients", default=8, show_default=True, help="Number of clients in the mixed traffic.")
@click.option("--seed", default=0, show_default=True)
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, default=PARTS, show_default=True)
def main(seconds: float, model: str | None, n_clients: int, seed: int, parts: Sequence[str]) -> None:
    """Put a server under load."""
    began = time.monotonic()
    broken: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        if model is None:
            save_random_model(Path(folder))
        path = model or folder
        if "overload" in parts:
            with serving(path, "--max-queue", str(QUEUE)) as served:
                broken += asyncio.run(overload(served, random.Random(seed), seconds))
        if "mixed" in parts:
            with serving(path) as served:
                broken += asyncio.run(soak(served, random.Random(seed), seconds, n_clients))
    for line in broken:
        print(f"BROKEN: {line}")
    print(f"{len(broken)} broken promises, seed {seed}, {time.monotonic() - began:.0f} s")
    sys.exit(bool(broken))


async def overload(served: Served, rng: random.Random, seconds: float) -> list[str]:
    """Send requests at four times the rate that a closed loop reaches."""
    bodies = equal_bodies(rng)
    capacity = await closed_loop(served.url, bodies, n_clients=QUEUE, seconds=seconds / 4)
    before = served.metric(r"rankllm_rankings_total")
    async with MemoryWatch(served) as memory:
        began = time.monotonic()
        seen = await open_loop(served.url, bodies, rate=OVERLOAD * capacity, seconds=seconds * 3 / 4)
        throughput = seen.statuses[200] / (time.monotonic() - began)
    n_ranked = served.metric(r"rankllm_rankings_total") - before
    limit = QUEUE / throughput + GRACE_S
    growth = growth_of(memory.samples)
    print(
        f"Overload: capacity {capacity:.1f}/s, arrivals {OVERLOAD * capacity:.1f}/s; answered {seen.statuses[200]} "
        f"({throughput:.1f}/s, p99 {seen.p99(200):.2f} s, limit {limit:.2f} s), refused {seen.statuses[429]} "
        f"(p99 {seen.p99(429) * 1000:.0f} ms); memory {memory.samples[-1]:.0f} MiB, {growth:+.2%}",
        flush=True,
    )
    broken = left_over(served, seen)
    broken += [f"{n_ranked:.0f} rankings, {seen.statuses[200]} of them answered"] * (n_ranked != seen.statuses[200])
    broken += ["nothing was refused"] * (not seen.statuses[429])
    broken += [f"p99 of what was accepted {seen.p99(200):.2f} s, over {limit:.2f} s"] * (seen.p99(200) > limit)
    broken += [f"p99 of refusals {seen.p99(429):.2f} s, not at once"] * (seen.p99(429) > AT_ONCE_S)
    return broken + [f"memory grew by {growth:.1%}"] * (growth > MOST_GROWTH)


async def soak(served: Served, rng: random.Random, seconds: float, n_clients: int) -> list[str]:
    """Send all kinds of requests, some of which are rejected or abandoned by their clients."""
    seen = Seen()
    largest = iter([largest_errand(rng)] * n_clients)
    await asyncio.gather(*(run_errands(served.url, largest, seen) for _ in range(n_clients)))
    until = time.monotonic() + seconds
    work = itertools.takewhile(lambda _: time.monotonic() < until, errands(rng))
    async with MemoryWatch(served) as memory:
        await asyncio.gather(*(run_errands(served.url, work, seen) for _ in range(n_clients)))
    growth = growth_of(memory.samples)
    answered = ", ".join(f"{n} x {status}" for status, n in sorted(seen.statuses.items()))
    print(
        f"Mixed: {answered}, {seen.n_left} left; p99 {seen.p99(200):.2f} s; "
        f"memory {memory.samples[-1]:.0f} MiB, {growth:+.2%}",
        flush=True,
    )
    return left_over(served, seen) + [f"memory grew by {growth:.1%}"] * (growth > MOST_GROWTH)


def left_over(served: Served, seen: Seen) -> list[str]:
    """Return wrong answers, and what the server still holds when all clients are gone."""
    deadline = time.monotonic() + 30
    while (n := served.metric(r"rankllm_requests_unfinished")) and time.monotonic() < deadline:
        time.sleep(0.2)
    return seen.wrong[:5] + [f"{n:.0f} requests are unfinished"] * bool(n)


def growth_of(samples: Sequence[float]) -> float:
    """Return by how much the last tenth exceeds the first tenth after the warm-up."""
    counted = samples[int(len(samples) * WARM_UP) :]
    tenth = max(1, len(counted) // 10)
    return median(counted[-tenth:]) / median(counted[:tenth]) - 1


if __name__ == "__main__":
    main()

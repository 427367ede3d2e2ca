"""Seeded requests, clients that send them, and their observations."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

import httpx2

PATIENCE_S = 600.0
_WORDS = ("reranker", "aspirin", "Übergröße", "東京", "of", "the", "window", "😀", "passage", "naïve", "42", "gradient")


@dataclass
class Seen:
    """What clients observed: number of responses and waiting times by status."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: dict[int, list[float]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    """Responses with an unexpected status."""
    n_left: int = 0
    """Number of requests abandoned by their client."""

    def add(self, status: int, seconds: float) -> None:
        """Count a response."""
        self.statuses[status] += 1
        self.seconds.setdefault(status, []).append(seconds)

    def p99(self, status: int) -> float:
        """Return the 99th percentile of the seconds for this status."""
        taken = self.seconds.get(status, [])
        return quantiles(taken, n=100, method="inclusive")[98] if len(taken) > 1 else sum(taken)


def words(rng: random.Random, n: int) -> str:
    """Return a text with this many words."""
    return " ".join(rng.choices(_WORDS, k=n))


def equal_bodies(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Yield requests of equal cost, all different."""
    for number in itertools.count():
        yield {"query": f"{number} {words(rng, 4)}", "documents": [words(rng, 20) for _ in range(4)]}


@dataclass(frozen=True)
class Errand:
    """Request with its expected statuses, and the seconds after which its client leaves."""

    path: str
    body: Any
    expected: frozenset[int] = frozenset({200})
    leaves_after_s: float | None = None


def errands(rng: random.Random) -> Iterator[Errand]:
    """Yield requests of all kinds: most are ranked, some rejected, some abandoned."""
    while True:
        documents = [words(rng, rng.choice((1, 5, 30, 200, 900))) for _ in range(rng.choice((1, 2, 5, 12)))]
        body: dict[str, Any] = {"query": words(rng, rng.randint(1, 12)), "documents": documents}
        match rng.randrange(10):
            case 0:
                yield Errand("/rerank", {"query": body["query"], "texts": documents, "return_text": True})
            case 1:
                yield Errand("/score", {"text_1": body["query"], "text_2": documents})
            case 2:
                yield Errand("/v1/rerank", body | {"top_n": 1, "max_tokens_per_doc": 40})
            case 3:
                yield Errand("/v2/rerank", {"query": body["query"]}, frozenset({400}))
            case 4:
                yield Errand("/v1/rerank", body | {"model": "another"}, frozenset({404}))
            case 5:
                yield Errand("/v2/rerank", body, leaves_after_s=rng.uniform(0.0, 0.3))
            case _:
                yield Errand("/v2/rerank", body | {"return_documents": rng.random() < 0.5})


def largest_errand(rng: random.Random) -> Errand:
    """Return a request of the maximum size."""
    return Errand("/v2/rerank", {"query": words(rng, 12), "documents": [words(rng, 900) for _ in range(12)]})


async def run_errands(url: str, work: Iterator[Errand], seen: Seen) -> None:
    """Run one client: one errand after the other, on one connection while it lasts."""
    async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
        for errand in work:
            began = time.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(errand.leaves_after_s):
                    response = await client.post(errand.path, json=errand.body)
                    seen.add(response.status_code, time.monotonic() - began)
                    if response.status_code not in errand.expected:
                        seen.wrong.append(f"{response.status_code} {response.text[:200]}")
                    continue
            seen.n_left += 1


async def closed_loop(url: str, bodies: Iterator[dict[str, Any]], *, n_clients: int, seconds: float) -> float:
    """Return responses per second with this many clients, each of which always waits for one response."""
    async with client_of_many(url, n_clients) as client:
        began, done = time.monotonic(), 0

        async def ask() -> None:
            nonlocal done
            while time.monotonic() - began < seconds:
                (await client.post("/v2/rerank", json=next(bodies))).raise_for_status()
                done += 1

        await asyncio.gather(*(ask() for _ in range(n_clients)))
        return done / (time.monotonic() - began)


async def open_loop(url: str, bodies: Iterator[dict[str, Any]], *, rate: float, seconds: float) -> Seen:
    """Send requests at this rate regardless of the responses, wait for all of them, and return what was observed."""
    seen = Seen()
    async with client_of_many(url, 10_000) as client, asyncio.TaskGroup() as group:

        async def ask(body: dict[str, Any]) -> None:
            began = time.monotonic()
            response = await client.post("/v2/rerank", json=body)
            seen.add(response.status_code, time.monotonic() - began)
            check_overload_answer(response, body, seen)

        began = time.monotonic()
        for number in itertools.count():
            due = began + number / rate
            if due - began > seconds:
                break
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            group.create_task(ask(next(bodies)))
    return seen


def check_overload_answer(response: httpx2.Response, body: dict[str, Any], seen: Seen) -> None:
    """Record a response that is neither a full ranking nor a rejection with a retry time."""
    if response.status_code == 200:
        indexes = sorted(result["index"] for result in response.json()["results"])
        if indexes != list(range(len(body["documents"]))):
            seen.wrong.append(f"200 with the documents {indexes}")
    elif response.status_code != 429 or int(response.headers.get("retry-after", "0")) < 1:
        seen.wrong.append(f"{response.status_code} {dict(response.headers)} {response.text[:200]}")


def client_of_many(url: str, n: int) -> httpx2.AsyncClient:
    """Return a client with up to n connections."""
    limits = httpx2.Limits(max_connections=n, max_keepalive_connections=n)
    return httpx2.AsyncClient(base_url=url, timeout=PATIENCE_S, trust_env=False, limits=limits)

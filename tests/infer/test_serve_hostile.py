"""Seeded hostile requests: each is answered in JSON with a documented status, and never with 500."""

from __future__ import annotations

import asyncio
import random

import pytest
from hostile_requests import PATHS, SERVED, content
from serving_fakes import Served

DOCUMENTED = {200, 400, 404, 413, 422, 424}


@pytest.mark.parametrize("kind", ["pointwise", "listwise"])
@pytest.mark.parametrize("seed", range(3))
def test_no_request_is_a_bug(kind, seed):
    """300 per seed; accepted requests are answered, and valid requests still work."""
    draw = random.Random(seed)
    served = Served(SERVED[kind](), max_documents=50, max_body=20_000)

    async def ask_all():
        async with served.client() as client:
            for _ in range(300):
                path, sent = draw.choice(PATHS), content(draw)
                done = await asyncio.wait_for(client.post(path, content=sent), 30)
                assert done.status_code in DOCUMENTED, (path, sent, done.text)
                done.json()
            return await client.post("/rerank", json={"query": "q", "documents": ["a", "b"]})

    assert asyncio.run(ask_all()).status_code == 200
    assert served.desk.n_unfinished == 0
    assert {line["status"] for line in served.lines} >= {200, 400}

"""Hostile requests from seeds: each is answered, in JSON, with a status that is documented, and never with 500."""

from __future__ import annotations

import asyncio
import json
import random

import pytest
from fuzz_inputs import MAGICS, ODD_LETTERS
from serving_fakes import Served, listwise, pointwise

from rankllm_infer.engines.base import Answer
from rankllm_infer.serving.dialects.fields import FIELDS

PATHS = ("/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score")
DOCUMENTED = {200, 400, 404, 413, 422, 424}
KEYS = (*FIELDS, "documents", "texts", "queries", "text_1", "text_2", "data_1", "data_2", "rank_fields", "priority")
VALUES = ("", "q", "worth 1", 0, 1, -1, 2**70, 1.5, 1e308, True, False, None, [], {}, "sliding", "tournament", "right")


def odd_text(draw):
    """Words, letters that pose as others, and half characters."""
    return "".join(draw.choice((*ODD_LETTERS, "a", " ", "\ud800", "worth 3")) for _ in range(draw.randrange(12)))


def odd_value(draw, depth=0):
    """Any JSON value."""
    kind = draw.randrange(6 if depth < 3 else 3)
    if kind < 2:
        return draw.choice(VALUES)
    if kind == 2:
        return odd_text(draw)
    if kind == 3:
        return {draw.choice((*KEYS, "text", "title", odd_text(draw))): odd_value(draw, depth + 1) for _ in range(3)}
    return [odd_value(draw, depth + 1) for _ in range(draw.randrange(5))]


def content(draw):
    """A body: nearly right, odd, damaged or no JSON at all."""
    body = {"query": "q", "documents": ["worth 1", {"text": "worth 2"}], "texts": None}
    for _ in range(draw.randrange(4)):
        body[draw.choice(KEYS)] = odd_value(draw)
    if draw.randrange(4) == 0:
        body["documents"] = [odd_text(draw) for _ in range(draw.randrange(1, 9))]
    text = json.dumps(body).encode()
    match draw.randrange(8):
        case 0:
            return draw.choice(MAGICS) + text
        case 1:
            at = draw.randrange(len(text))
            return text[:at] + bytes([draw.randrange(256)]) + text[at + 1 :]
        case 2:
            return text[: draw.randrange(len(text))]
        case _:
            return text


def any_number(prompt):
    """A head that has something to say of any text."""
    return Answer(scores=(float(len(prompt.text) % 7),))


@pytest.mark.parametrize("make", [lambda: pointwise(any_number), listwise], ids=["pointwise", "listwise"])
@pytest.mark.parametrize("seed", range(3))
def test_no_request_is_a_bug(make, seed):
    """300 a seed; whatever was accepted is answered, and a good request still is."""
    draw = random.Random(seed)
    served = Served(make(), max_documents=50, max_body=20_000)

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

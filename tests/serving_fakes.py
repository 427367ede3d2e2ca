"""A server in this process: a reranker whose answers come from a function, behind the real application."""

from __future__ import annotations

import asyncio
import io
import json
import threading

import httpx2
from ranking_fakes import PlainPairWriter, answer_by, make_method

from rankllm_core.card import PointwiseCard
from rankllm_core.prompts.template import load_template
from rankllm_core.types import Usage
from rankllm_infer.api import Reranker
from rankllm_infer.engines.base import Answer
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.ranking.pointwise import PointwiseMethod
from rankllm_infer.ranking.settings import RankingSettings
from rankllm_infer.serving.access import Access
from rankllm_infer.serving.app import make_app
from rankllm_infer.serving.desk import Desk
from rankllm_infer.serving.observing import Observer
from rankllm_infer.serving.settings import ServerOptions

PATIENCE_S = 30
HEAD = PointwiseCard(template=load_template("rankllama"))
"""Without a probability: its scores are passed through a sigmoid."""


def worth(prompt):
    """The head's score is the number that the passage holds; a token a word."""
    text = prompt.text.split("|")[2]
    return Answer(scores=(float(text.split()[-1]),), usage=Usage(calls=1, prompt_tokens=len(text.split())))


class Held:
    """Scores as `worth` does, once it is let go."""

    def __init__(self):
        self.has_begun = threading.Event()
        self.may_go = threading.Event()

    def __call__(self, prompt):
        self.has_begun.set()
        assert self.may_go.wait(PATIENCE_S)
        return worth(prompt)


def pointwise(answer=worth, *, card=HEAD, **settings):
    """A reranker that scores pairs."""
    method = PointwiseMethod(card, RankingSettings(**settings), PlainPairWriter())
    return Reranker(method, ScriptedEngine(answer))


def listwise(key=len, *, size=4, stride=2, answer=None, **settings):
    """A reranker that generates permutations: shortest passages first."""
    return Reranker(make_method(size=size, stride=stride, **settings), ScriptedEngine(answer or answer_by(key)))


class Served:
    """The application of a reranker, and what it has logged."""

    def __init__(self, reranker, *, keys=(), **options):
        self.desk = Desk(reranker, ServerOptions(**options), model="tiny")
        self.stream = io.StringIO()
        self.observer = Observer(stream=self.stream)
        self.app = make_app(self.desk, self.observer, keys=Access(keys, protect=options.get("protect", ())))

    @property
    def lines(self):
        """The log, a record a line."""
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def client(self):
        """An asynchronous client of the application."""
        transport = httpx2.ASGITransport(app=self.app)
        return httpx2.AsyncClient(transport=transport, base_url="http://localhost")

    def ask(self, method, path, **more):
        """The response to one request."""

        async def asked():
            async with self.client() as client:
                return await client.request(method, path, **more)

        return asyncio.run(asked())

    def post(self, path, body, **more):
        """The response to JSON."""
        return self.ask("POST", path, json=body, **more)

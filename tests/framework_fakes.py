"""Rerankers that work without a model, and what else the tests of the framework integrations share."""

from __future__ import annotations

import itertools
import re
import threading
from contextlib import contextmanager

from chat_server import serving
from ranking_fakes import PlainPairWriter, answer_by, make_method
from ranking_server import respond
from shared_files import REPOSITORY

from rankllm_core.card import PointwiseCard
from rankllm_core.prompts.template import load_template
from rankllm_core.types import Usage
from rankllm_infer.api import Reranker
from rankllm_infer.engines.base import Answer, EngineError
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.ranking.pointwise import PointwiseMethod
from rankllm_infer.ranking.settings import RankingSettings

TEXTS = ["worth 2", "worth 9", "worth 2", "worth 5"]
"""Two of them alike."""
BEST = [1, 3, 0, 2]
"""Their positions, best first."""
BY_RANK = [1.0, 0.75, 0.5, 0.25]
"""(4 - rank) / 4: what a model that writes permutations says of four texts."""
REFUSED = EngineError("out of order")
_FENCED = re.compile(r"^```py\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def worth(text):
    """9 of `worth 9`, as a key that puts the greatest first."""
    return -float(text.split()[-1])


def listwise(answer=None, **settings):
    """A reranker that generates permutations: by worth, or by `answer` to a prompt."""
    return Reranker(make_method(**settings), ScriptedEngine(answer or answer_by(worth)))


def pointwise(**card):
    """A reranker whose score head says what a text is worth; `card` changes the card."""

    def head(prompt):
        return Answer(scores=(float(prompt.text.split()[-1]),), usage=Usage(calls=1))

    card = PointwiseCard(template=load_template("rankllama"), **card)
    return Reranker(PointwiseMethod(card, RankingSettings(), PlainPairWriter()), ScriptedEngine(head))


def unreadable(prompt):
    """An answer that holds no ranking."""
    return Answer(text="I cannot rank these.", usage=Usage(calls=1))


class Crowd(Reranker):
    """A reranker whose first answer waits until `n` calls have come, from threads or from tasks.

    What comes one by one waits for ever (30 seconds, and then fails); what comes together shares `engine.batches`.
    """

    def __init__(self, n):
        self._gate = threading.Event()
        self._arrived = itertools.count(1)
        self._n = n
        super().__init__(make_method(), ScriptedEngine(self._answer))

    def _answer(self, prompt):
        if not self._gate.wait(30):
            return EngineError("nobody else came")
        return answer_by(worth)(prompt)

    def _count(self):
        if next(self._arrived) == self._n:
            self._gate.set()

    def stream(self, requests, **more):
        """Counts a call of `rerank`."""
        self._count()
        yield from super().stream(requests, **more)

    def submit(self, request, **more):
        """Counts a request of `arerank`."""
        future = super().submit(request, **more)
        self._count()
        return future


@contextmanager
def counted_model():
    """(`model` and `options` of the model on a chat server, a function that counts how often it was loaded).

    Opening a server's model asks it once which models it has.
    """
    with serving(respond) as server:

        def loads():
            return sum(received.path.endswith("/models") for received in server.requests)

        options = {"engine": "openai", "base_url": server.base_url}
        yield {"model": "oracle", "options": options}, loads


def examples(page):
    """The Python programs of a page under docs/, in order."""
    return _FENCED.findall((REPOSITORY / "docs" / page).read_text(encoding="utf-8"))

"""Fakes that work, for everything above the engines: a prompt writer that counts words, requests, and oracles."""

from __future__ import annotations

import random
import re

from rankllm_core.card import ListwiseCard
from rankllm_core.prompts.template import load_template
from rankllm_core.types import Candidate, Query, Request, Usage
from rankllm_infer.engines.base import Answer, Prompt
from rankllm_infer.ranking.listwise import ListwiseMethod
from rankllm_infer.ranking.prompts import WrittenPrompt
from rankllm_infer.ranking.settings import RankingSettings
from rankllm_infer.scheduling.pool import FlowPool

_SHOWN = re.compile(r"^\[(\w+)\] ?(.*)$", re.MULTILINE)


class WordWriter:
    """Writes prompts in a toy chat layout; its tokens are words between blanks."""

    def write(self, messages, *, opening=""):
        """`<|role|> content` by line, then the model's turn."""
        lines = [f"<|{message.role}|> {message.content}" for message in messages]
        text = "\n".join([*lines, f"<|assistant|>{opening}"])
        return WrittenPrompt(text=text, n_tokens=len(text.split()), messages=tuple(messages))

    def count(self, text):
        """Words."""
        return len(text.split())


def make_request(qid, n, *, doc=None):
    """A query with candidates d0, d1, ... whose texts are their docids and whose scores fall from n to 1."""
    candidates = (
        Candidate(docid=f"d{i}", score=float(n - i), doc={"text": f"d{i}"} if doc is None else doc(i)) for i in range(n)
    )
    return Request(query=Query(qid=qid, text=f"query {qid}"), candidates=tuple(candidates))


def make_method(*, size=20, stride=10, template="rank_zephyr", card=None, writer=None, **settings):
    """A listwise method that counts words; `card` changes the card."""
    values = {"template": load_template(template), "window_size": size, "stride": stride}
    card = ListwiseCard(**(values | (card or {})))
    return ListwiseMethod(card, RankingSettings(**settings), writer or WordWriter())


def shown(prompt):
    """(identifier, text) of each passage in a prompt of rank_zephyr or rank_zephyr_alpha, in prompt order."""
    return _SHOWN.findall(prompt.text)


def answer_by(key):
    """An oracle that ranks what it is shown by a key of the passage's text, smallest first."""

    def answer(prompt):
        ranked = sorted(shown(prompt), key=lambda pair: key(pair[1]))
        text = " > ".join(f"[{label}]" for label, _ in ranked)
        return Answer(text=text, usage=Usage(calls=1, prompt_tokens=10, completion_tokens=3))

    return answer


def number(text):
    """7 of `d7`."""
    return int(text.removeprefix("d"))


def noisy(prompt):
    """An oracle that is right, wrong, incomplete or mad, by the prompt alone: the same prompt, the same answer."""
    generator = random.Random(prompt.text)
    labels = [label for label, _ in shown(prompt)]
    generator.shuffle(labels)
    kind = generator.randrange(4)
    if kind == 0:
        text = "I cannot rank these."
    elif kind == 1:
        text = " > ".join(f"[{label}]" for label in labels[: len(labels) // 2])
    else:
        text = " > ".join(f"[{label}]" for label in labels)
    return Answer(text=text, usage=Usage(calls=1, completion_tokens=kind))


def rerank(engine, requests, method, *, max_active=64):
    """The results of a pool of listwise flows."""
    pool = FlowPool(engine, max_active=max_active)
    return list(pool.run(requests, method.flow))


def docids(result):
    """The docids of a result, in order."""
    return [candidate.docid for candidate in result.candidates]


class PlainPairWriter:
    """Writes a pair as `query|title|text`."""

    def write(self, query, *, title, text, instruction=None):
        """The pair in words."""
        return Prompt(text=f"{query}|{title}|{text}", read="head")

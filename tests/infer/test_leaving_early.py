"""A run that is abandoned early does not affect the next one on the same engine."""

from __future__ import annotations

from rankllm_core.card import ListwiseCard
from rankllm_core.prompts.template import load_template
from rankllm_core.types import Candidate, Query, Request
from rankllm_infer.api import Reranker
from rankllm_infer.engines.base import Answer
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.ranking.listwise import ListwiseMethod
from rankllm_infer.ranking.prompts import MessagePromptWriter
from rankllm_infer.ranking.settings import RankingSettings


def request(qid: str) -> Request:
    candidates = tuple(Candidate(docid=f"{qid}-{n}", score=-float(n), doc={"text": f"{qid} {n}"}) for n in range(3))
    return Request(query=Query(qid=qid, text=qid), candidates=candidates)


def test_answers_to_a_run_that_was_left_never_reach_the_next_one():
    """The first run's answers reverse the list, the second's keep it. A mix-up would show as a reversed list."""
    engine = ScriptedEngine(
        lambda prompt: Answer(text="[3] > [2] > [1]" if "first" in prompt.text else "[1] > [2] > [3]"), batch_size=1
    )
    card = ListwiseCard(template=load_template("rank_zephyr"))
    reranker = Reranker(ListwiseMethod(card, RankingSettings(), MessagePromptWriter()), engine)
    stream = reranker.stream([request(f"first{n}") for n in range(5)])
    assert [c.docid[-1] for c in next(stream).candidates] == ["2", "1", "0"]
    stream.close()
    results = reranker.rerank([request(f"second{n}") for n in range(5)])
    assert [[c.docid[-1] for c in result.candidates] for result in results] == [["0", "1", "2"]] * 5
    assert sum("first" in prompt.text for prompt in engine.asked) == 1

"""Progress in prompts: exact if the number is known, never beyond the total, and complete at the end."""

from __future__ import annotations

import math

import pytest
from ranking_fakes import PlainPairWriter, answer_by, make_method, make_request, noisy, number

from rankllm_core.card import PointwiseCard
from rankllm_core.prompts.template import load_template
from rankllm_infer.api import Reranker
from rankllm_infer.engines.base import Answer, EngineError
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.ranking.pointwise import PointwiseMethod
from rankllm_infer.ranking.settings import RankingSettings
from rankllm_infer.watching import PromptProgress

SIZES = (35, 0, 100, 1, 7, 20, 64, 3, 2)


def pointwise(answer=lambda prompt: Answer(scores=(1.0,)), **plan):
    """A pointwise reranker, three pairs at a time."""
    card = PointwiseCard(template=load_template("rankllama"))
    return Reranker(
        PointwiseMethod(card, RankingSettings(**plan), PlainPairWriter()), ScriptedEngine(answer, batch_size=3)
    )


def listwise(answer=noisy, **plan):
    """A listwise reranker."""
    return Reranker(make_method(**plan), ScriptedEngine(answer, batch_size=3))


def watch(reranker, sizes=SIZES):
    """(done, total, finished queries) at each step of a run, and the number of prompts run."""
    requests = [make_request(f"q{i}", n) for i, n in enumerate(sizes)]
    progress = PromptProgress(reranker.n_prompts, {r.query.qid: len(r.candidates) for r in requests})
    seen = [(progress.done, progress.total, progress.n_finished)]

    def look(count):
        def after(item):
            count(item if isinstance(item, str) else item.query.qid)
            seen.append((progress.done, progress.total, progress.n_finished))

        return after

    list(reranker.stream(requests, on_answered=look(progress.answer), on_finished=look(progress.finish)))
    return seen, len(reranker.engine.asked)


@pytest.mark.parametrize("top_k", [None, 1, 10])
def test_pairs_are_counted_one_by_one(top_k):
    """As many as candidates to score: 232, or at most 10 of each query."""
    total = sum(min(n, top_k or n) for n in SIZES)
    seen, asked = watch(pointwise(top_k_candidates=top_k))
    assert asked == total
    assert {step[1] for step in seen} == {total}
    assert sorted({step[0] for step in seen}) == list(range(total + 1))
    assert seen[-1] == (total, total, len(SIZES))


@pytest.mark.parametrize(
    ("plan", "n", "expected"),
    [
        ({}, 100, 9),
        ({}, 20, 1),
        ({}, 21, 2),
        ({}, 1, 0),
        ({}, 0, 0),
        ({"stride": 20}, 21, 1),
        ({"num_passes": 3}, 100, 27),
        ({"num_passes": 3, "pass_depth": 30}, 100, 9 + 2 * 2),
        ({"top_k_candidates": 40}, 100, 3),
        ({"permutations": 4}, 100, 36),
        ({"strategy": "full"}, 20, 1),
        ({"strategy": "full"}, 21, 0),
        ({"strategy": "tournament"}, 100, 5 + 2 + 1 + 1),  # groups of ten go on unasked
        ({"strategy": "top-down"}, 100, 1 + math.ceil(80 / 19)),
        ({"short_windows": False}, 25, 0),
    ],
)
def test_windows_are_known_beforehand(plan, n, expected):
    """Counted by hand; queries without anything to rank have no prompts."""
    assert make_method(**plan).n_prompts(n) == expected


@pytest.mark.parametrize(
    "plan",
    [
        {},
        {"num_passes": 2, "pass_depth": 30},
        {"permutations": 3},
        {"top_k_candidates": 33},
        {"strategy": "tournament"},
        {"strategy": "full"},
        {"short_windows": False},
        {"size": 8, "stride": 3, "shuffle_seed": 1},
    ],
)
def test_windows_are_counted_to_the_last(plan):
    """The total is known from the start and equals the number of prompts run, whatever the answers."""
    seen, asked = watch(listwise(**plan))
    assert seen[0][:2] == (0, asked)
    assert {step[1] for step in seen} == {asked}
    assert seen[-1] == (asked, asked, len(SIZES))


@pytest.mark.parametrize("answer", [answer_by(number), answer_by(lambda text: -number(text)), noisy])
def test_a_total_that_depends_on_the_answers_is_put_right(answer):
    """Top-down: never beyond the total, and at the end the total equals the number of prompts run."""
    seen, asked = watch(listwise(answer, strategy="top-down"))
    assert all(done <= total for done, total, _ in seen)
    assert [done for done, *_ in seen] == sorted(done for done, *_ in seen)
    assert seen[-1] == (asked, asked, len(SIZES))


def test_a_failed_query_is_taken_off_the_total():
    """Its remaining prompts will never be run."""

    def answer(prompt):
        return EngineError("no") if prompt.text == "query q2||d50" else Answer(scores=(1.0,))

    seen, _ = watch(pointwise(answer))
    done, total, finished = seen[-1]
    assert (done == total, finished) == (True, len(SIZES))
    assert sum(SIZES) - 100 <= total < sum(SIZES)


def test_what_was_finished_before_is_done_from_the_start():
    """A resumed run starts from its previous progress."""
    progress = PromptProgress(lambda n: n, {"a": 10, "b": 5, "c": 1})
    progress.skip("a")
    assert (progress.done, progress.total, progress.n_finished) == (10, 16, 1)
    progress.answer("b")
    assert (progress.done, progress.total, progress.n_finished) == (11, 16, 1)


def test_the_bar_shows_prompts_and_queries(capsys):
    """And ends at its total."""
    from rankllm_infer.console import prompt_counter
    from rankllm_infer.watching import ShownProgress

    progress = PromptProgress(lambda n: n, {"a": 2, "b": 3})
    progress.skip("a")
    with prompt_counter("rerank", progress) as show:
        shown = ShownProgress(progress, show)
        for _ in range(3):
            shown.answer("b")
        shown.finish("b")
    said = capsys.readouterr().err
    assert "2/5" in said
    assert "5/5" in said
    assert "2 of 2 queries" in said
    assert "prompts" in said

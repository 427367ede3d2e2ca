"""Strategies with a model: through prompts, pool and engine, with oracles, noise and malformed answers."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
from ranking_fakes import WordWriter, answer_by, docids, make_method, make_request, noisy, number, rerank, shown

from rankllm_core.errors import ConfigError
from rankllm_core.types import Usage
from rankllm_infer.engines.base import Answer, EngineError
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.scheduling.pool import FlowPool

PLACES = random.Random(1).sample(range(100), 100)
"""True rank of each passage."""


def place(text):
    """True rank of the passage `d7`."""
    return PLACES[number(text)]


def rerank_one(answer, n, plan, *, batch_size=64, **request):
    """The single result, and the engine."""
    engine = ScriptedEngine(answer, batch_size=batch_size)
    (result,) = rerank(engine, [make_request("q", n, **request)], plan)
    return result, engine


@pytest.mark.parametrize(
    ("options", "settled", "batches"),
    [
        # Each batch is what could be asked at once: the sum is the calls, their number the critical path.
        ({"strategy": "sliding"}, 10, [1] * 9),
        ({"strategy": "full", "size": 100}, 100, [1]),
        ({"strategy": "tournament"}, 10, [5, 2, 1, 1]),
        ({"strategy": "tournament", "rank_top_k": 5}, 5, [5, 1, 1]),
        ({"strategy": "sliding", "permutations": 3}, 10, [3] * 9),
        ({"strategy": "tournament", "permutations": 2}, 10, [10, 4, 2, 2]),
        ({"strategy": "sliding", "num_passes": 2}, 20, [1] * 18),
        ({"strategy": "sliding", "num_passes": 2, "pass_depth": 30}, 10, [1] * (9 + 2)),
        ({"strategy": "sliding", "size": 10, "stride": 5, "num_passes": 2, "pass_depth": 30}, 5, [1] * (19 + 5)),
        ({"strategy": "tournament", "num_passes": 2}, 10, [5, 2, 1, 1] * 2),
        ({"strategy": "tournament", "num_passes": 3, "pass_depth": 20}, 10, [5, 2, 1, 1, 1, 1]),
        ({"strategy": "tournament", "shuffle_seed": 3}, 10, [5, 2, 1, 1]),
    ],
)
def test_a_right_model_finds_the_best_and_all_of_a_round_is_asked_at_once(options, settled, batches):
    """The true top ranks in order; usage reports the calls and how many rounds they took."""
    result, engine = rerank_one(answer_by(place), 100, make_method(**options))
    assert [place(docid) for docid in docids(result)[:settled]] == list(range(settled))
    assert engine.batches == batches
    calls = sum(batches)
    assert result.usage == Usage(
        calls=calls, rounds=len(batches), prompt_tokens=10 * calls, completion_tokens=3 * calls
    )
    assert (result.status, result.defects) == ("ok", ())


def test_top_down_meets_the_pivot_everywhere_at_once():
    """The first stage has two errors: one window, five with the pivot (number 10) first, and one for the rest."""
    strays = {"d55": -2, "d95": -1}
    result, engine = rerank_one(
        answer_by(lambda text: strays.get(text, number(text))), 100, make_method(strategy="top-down")
    )
    assert engine.batches == [1, 5, 1]
    assert docids(result)[:12] == ["d55", "d95", *(f"d{i}" for i in range(10))]
    windows = [[text for _, text in shown(prompt)] for prompt in engine.asked]
    assert windows[0] == [f"d{i}" for i in range(20)]
    assert windows[1] == ["d9", *(f"d{i}" for i in range(20, 39))]
    assert windows[5] == ["d9", "d96", "d97", "d98", "d99"]
    # The best of each window, then their second: the pivot, which is behind all of them, closes.
    assert windows[6] == ["d0", "d55", "d95", *(f"d{i}" for i in range(1, 10))]
    assert result.usage.rounds == 3


@pytest.mark.parametrize("strategy", ["sliding", "top-down", "tournament"])
@pytest.mark.parametrize("permutations", [1, 3])
def test_batching_never_shows_in_a_result(strategy, permutations):
    """With an often wrong model, many queries together give what each gives alone, one prompt at a time."""
    options = {"strategy": strategy, "permutations": permutations, "permutation_seed": 4, "with_trace": True}
    plan = make_method(size=8, stride=3, **options)
    requests = [make_request(f"q{i}", n) for i, n in enumerate([35, 0, 64, 1, 7, 8, 2, 41])]
    alone = [result for r in requests for result in rerank(ScriptedEngine(noisy, batch_size=1), [r], plan)]
    for reverse in (False, True):
        engine = ScriptedEngine(noisy, batch_size=5, reverse=reverse)
        assert rerank(engine, requests, plan, max_active=3) == alone
    for request, result in zip(requests, alone, strict=True):
        assert sorted(docids(result)) == sorted(f"d{i}" for i in range(len(request.candidates)))
        assert result.usage.calls == len(result.trace)


def test_an_error_in_one_of_a_rounds_windows_fails_the_query():
    """A partial tournament would look like a complete one."""

    def answer(prompt):
        return EngineError("lost") if ("1", "d40") in shown(prompt) else answer_by(place)(prompt)

    result, _ = rerank_one(answer, 100, make_method(strategy="tournament"))
    assert (result.status, result.error) == ("failed", "query 'q': lost")
    assert docids(result) == [f"d{i}" for i in range(100)]


def test_windows_that_are_no_slice_are_named_by_their_call():
    """In the defects and in the trace, whose docids list the passages shown."""

    def answer(prompt):
        return Answer(text="nothing") if ("1", "d2") in shown(prompt) else answer_by(number)(prompt)

    plan = make_method(size=2, stride=1, strategy="tournament", with_trace=True)
    result, _ = rerank_one(answer, 4, plan)
    assert result.defects == ("call 2: missing [1]", "call 2: missing [2]")
    assert [(call.start, call.docids) for call in result.trace] == [
        (None, ("d0", "d1")),
        (None, ("d2", "d3")),
        (None, ("d0", "d2")),
    ]
    full, _ = rerank_one(lambda prompt: Answer(text="[1]"), 2, make_method(strategy="full", with_trace=True))
    assert full.defects == ("ranks 1-2: missing [2]",)
    assert full.trace[0].start == 0


def test_only_the_first_k_candidates_are_asked_about():
    """The others follow in their original order, for every strategy."""
    for strategy in ("full", "top-down", "tournament"):
        result, _ = rerank_one(
            answer_by(lambda text: -number(text)), 30, make_method(strategy=strategy, top_k_candidates=20)
        )
        assert docids(result) == [f"d{i}" for i in [*range(19, -1, -1), *range(20, 30)]]


def test_full_refuses_more_candidates_than_its_window():
    """The query fails and is named; no prompt is run."""
    result, engine = rerank_one(answer_by(place), 21, make_method(strategy="full"))
    assert result.error.startswith(
        "query 'q': 21 candidates exceed the window size of 20, but --strategy full shows all"
    )
    assert engine.asked == []


def test_full_cuts_no_passage_but_says_how_far_to():
    """If the context is too small: the stated number of words fits, one more does not. A sliding window would
    truncate."""
    words = " ".join(f"w{i}" for i in range(50))

    def options(**card):
        return {"strategy": "full", "card": {"context_tokens": 512} | card}

    result, engine = rerank_one(answer_by(len), 20, make_method(**options()), doc=lambda i: {"text": words})
    assert result.error.startswith("query 'q': its 20 candidates together exceed the context of 512 tokens; use ")
    assert engine.asked == []
    fitting = int(re.search(r"--max-passage-words (\d+),", result.error)[1])
    for more, status in ((0, "ok"), (1, "failed")):
        plan = make_method(**options(max_passage_words=fitting + more))
        assert rerank_one(answer_by(len), 20, plan, doc=lambda i: {"text": words})[0].status == status
    sliding = make_method(card={"context_tokens": 512})
    assert rerank_one(answer_by(len), 20, sliding, doc=lambda i: {"text": words})[0].status == "ok"


class LetterWriter(WordWriter):
    """Like `WordWriter`, with ten characters per token."""

    def write(self, messages, *, opening=""):
        written = super().write(messages, opening=opening)
        return replace(written, n_tokens=len(written.text) // 10)


def test_full_names_no_words_where_one_a_passage_is_too_much():
    """Text without spaces: one word can be a page."""
    method = make_method(strategy="full", card={"context_tokens": 180}, writer=LetterWriter())
    request = make_request("q", 4, doc=lambda i: {"text": "x" * 4000})
    pool = FlowPool(ScriptedEngine(answer_by(len)))
    (result,) = pool.run([request], method.flow)
    assert "together exceed the context of 180 tokens; use a larger --context-size" in result.error


def test_permutations_show_the_same_window_in_several_orders():
    """The first in its own order, the others shuffled by seed and query; the trace records the orders."""

    def asked(seed, qid="q"):
        engine = ScriptedEngine(answer_by(number), batch_size=64)
        plan = make_method(permutations=4, permutation_seed=seed, with_trace=True)
        (result,) = rerank(engine, [make_request(qid, 30)], plan)
        return [[text for _, text in shown(prompt)] for prompt in engine.asked], result

    windows, result = asked(1)
    assert len(windows) == 8
    assert windows[0] == [f"d{i}" for i in range(10, 30)]
    assert all(sorted(window) == sorted(windows[0]) for window in windows[:4])
    assert len({tuple(window) for window in windows}) == 8
    assert [call.start for call in result.trace] == [10, None, None, None, 0, None, None, None]
    assert asked(1)[0] == windows
    assert asked(2)[0][0] == windows[0]
    assert asked(2)[0][1:4] != windows[1:4]
    assert asked(1, qid="p")[0][1:4] != windows[1:4]


def test_what_most_of_the_shuffled_answers_say_counts():
    """A model that moves the first shown passage to the end: wrong in a single answer, right in the majority."""

    def forgetful(prompt):
        texts = [(number(text), label) for label, text in shown(prompt)]
        order = [*sorted(texts[1:]), texts[0]]
        return Answer(text=" > ".join(f"[{label}]" for _, label in order))

    alone, _ = rerank_one(forgetful, 10, make_method())
    assert docids(alone) == [*(f"d{i}" for i in range(1, 10)), "d0"]
    together, _ = rerank_one(forgetful, 10, make_method(permutations=7))
    assert docids(together) == [f"d{i}" for i in range(10)]


def test_an_answer_without_a_ranking_is_no_vote():
    """It would vote for a random order. Without votes the window keeps its order."""

    def answer(prompt):
        is_own_order = shown(prompt)[0][1] == "d0"
        return answer_by(lambda text: -number(text))(prompt) if is_own_order else Answer(text="No idea.")

    plan = make_method(permutations=6, permutation_seed=1)
    result, engine = rerank_one(answer, 10, plan)
    assert sum(shown(prompt)[0][1] == "d0" for prompt in engine.asked) < 3
    assert docids(result) == [f"d{i}" for i in range(9, -1, -1)]
    assert result.status == "fallback"
    silent, _ = rerank_one(lambda prompt: Answer(text="No idea."), 10, plan)
    assert docids(silent) == [f"d{i}" for i in range(10)]


def noise(prompt):
    """A model that misplaces passages by about five ranks, differently for each prompt."""
    draw = random.Random(prompt.text)
    return answer_by(lambda text: place(text) + draw.gauss(0, 5))(prompt)


@pytest.mark.parametrize("strategy", ["sliding", "full", "top-down", "tournament"])
def test_asking_a_noisy_model_several_times_is_nearer_to_the_truth(strategy):
    """Summed distance of the top ten to their true ranks over 12 queries: five permutations reduce it by at least a
    quarter."""

    def miss(permutations):
        plan = make_method(
            strategy=strategy, permutations=permutations, size=60 if strategy == "full" else 20, with_trace=False
        )
        results = rerank(ScriptedEngine(noise, batch_size=64), [make_request(f"q{i}", 60) for i in range(12)], plan)
        best = sorted((f"d{i}" for i in range(60)), key=place)[:10]
        return sum(abs(docids(result).index(docid) - rank) for result in results for rank, docid in enumerate(best))

    assert miss(5) < 0.75 * miss(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "quick"}, "strategy: expected one of"),
        ({"strategy": "heapsort"}, "--strategy heapsort: is a pairwise strategy"),
        ({"permutations": 0}, "permutations: expected at least 1, found 0"),
        ({"rank_top_k": 3}, "--rank-top-k has no effect with --strategy sliding"),
        ({"strategy": "top-down", "rank_top_k": 20}, "less than the window of 20 passages"),
        (
            {"short_windows": False, "num_passes": 2, "pass_depth": 25},
            "--pass-depth 25: leaves a window with fewer than 20",
        ),
        ({"pass_depth": 30}, "--pass-depth has no effect without --num-passes 2 or more"),
        ({"strategy": "full", "short_windows": False}, "--no-variable-passages has no effect with --strategy full"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(options, message):
    """Before any prompt is run."""
    with pytest.raises(ConfigError, match=message):
        make_method(**options)


def test_what_no_answer_ranks_keeps_its_order_whatever_was_drawn():
    """Answers name only the last two of six in any shown order: the other four keep their order."""

    def best_two(prompt):
        labels = {text: label for label, text in shown(prompt)}
        return Answer(text=f"[{labels['d5']}] > [{labels['d4']}]")

    result, _ = rerank_one(best_two, 6, make_method(permutations=4, size=6, stride=6))
    assert docids(result) == ["d5", "d4", "d0", "d1", "d2", "d3"]


@pytest.mark.parametrize("strategy", ["top-down", "tournament"])
def test_a_strategy_gets_the_places_it_builds_on(strategy):
    """Half a window of twenty, or the requested number: with fewer, prompt order would be mistaken for ranking."""
    with pytest.raises(ConfigError, match=r"--decode-top-k 9: --strategy .* needs the first 10 of a window"):
        make_method(strategy=strategy, decode_top_k=9, free_decoding=False)
    make_method(strategy=strategy, decode_top_k=9, rank_top_k=9, free_decoding=False)

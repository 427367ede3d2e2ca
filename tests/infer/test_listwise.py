"""Listwise reranking of one request: always a ranking, with an accurate report of how it was read."""

from __future__ import annotations

import math

import pytest
from ranking_fakes import answer_by, docids, make_method, make_request, number, rerank, shown

from rankllm_core.errors import ConfigError
from rankllm_core.prompts.template import Message, Span
from rankllm_core.types import Usage
from rankllm_infer.engines.base import Answer, EngineError
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.ranking.listwise import order_by_score
from rankllm_infer.ranking.settings import RankingSettings

FIRST = {"identifiers": "alpha", "answer": "first-token"}


def rerank_one(answer, n, plan, **request):
    """The single result, and the engine."""
    engine = ScriptedEngine(answer)
    (result,) = rerank(engine, [make_request("q", n, **request)], plan)
    return result, engine


def say(text):
    """An engine that always returns this answer."""
    return lambda prompt: Answer(text=text)


def score_by(key):
    """A FIRST oracle: identifier logits by a key of the passage's text, greatest first."""
    return lambda prompt: Answer(scores=tuple(float(key(text)) for _, text in shown(prompt)))


@pytest.mark.parametrize(
    "answer",
    ["", "[1]", "[2] > [1]", "[99] > [98]", "[2] > [2] > [2]", "I cannot rank these.", "\x00\ud800", "[1] = [2]" * 999],
)
@pytest.mark.parametrize("n", [0, 1, 2, 5, 20, 23, 101])
def test_each_candidate_comes_out_exactly_once(answer, n):
    """For any answer and any number of candidates, with scores n, n - 1, ..., 1."""
    result, _ = rerank_one(say(answer), n, make_method())
    assert sorted(docids(result), key=number) == [f"d{i}" for i in range(n)]
    assert [candidate.score for candidate in result.candidates] == [float(n - rank) for rank in range(n)]
    assert result.status in ("ok", "repaired", "fallback")
    assert result.error is None


def test_a_right_model_brings_the_best_to_the_top():
    """One pass of windows of 20 with stride 10 sorts the top ten of a hundred in reverse, in nine calls."""
    result, engine = rerank_one(answer_by(lambda text: -number(text)), 100, make_method())
    assert docids(result)[:10] == [f"d{i}" for i in range(99, 89, -1)]
    assert [len(shown(prompt)) for prompt in engine.asked] == [20] * 9
    assert (result.status, result.defects) == ("ok", ())
    assert result.usage == Usage(calls=9, rounds=9, prompt_tokens=90, completion_tokens=27)


def test_each_pass_brings_up_more():
    """A window of 4 with stride 2 settles two more ranks per pass."""
    for passes in range(1, 11):
        result, engine = rerank_one(
            answer_by(lambda text: -number(text)), 20, make_method(size=4, stride=2, num_passes=passes)
        )
        settled = 2 * passes
        assert docids(result)[:settled] == [f"d{i}" for i in range(19, 19 - settled, -1)]
        assert len(engine.asked) == 9 * passes


def test_later_passes_may_go_over_the_first_alone():
    """A model that reverses each window: the first pass as below, the second reverses the top three again."""
    turn = say("[4] > [3] > [2] > [1]")
    once, _ = rerank_one(turn, 7, make_method(size=4, stride=2))
    assert docids(once) == ["d6", "d5", "d0", "d2", "d1", "d4", "d3"]
    twice, engine = rerank_one(turn, 7, make_method(size=4, stride=2, num_passes=2, pass_depth=3, with_trace=True))
    assert docids(twice) == ["d0", "d5", "d6", "d2", "d1", "d4", "d3"]
    assert [len(shown(prompt)) for prompt in engine.asked] == [4, 4, 3, 3]
    assert [window.start for window in twice.trace] == [3, 1, 0, 0]
    assert [candidate.score for candidate in twice.candidates] == [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]


def test_passes_deeper_than_the_list_go_over_all_of_it():
    """Equivalent to no depth."""
    right = answer_by(lambda text: -number(text))
    deep, engine = rerank_one(right, 20, make_method(size=4, stride=2, num_passes=2, pass_depth=50))
    whole, other = rerank_one(right, 20, make_method(size=4, stride=2, num_passes=2))
    assert (docids(deep), len(engine.asked)) == (docids(whole), len(other.asked))


def test_windows_are_asked_from_the_bottom_up_each_with_what_the_last_one_left():
    """A model that reverses each window: 7 candidates, windows of 4, stride 2."""
    _, engine = rerank_one(say("[4] > [3] > [2] > [1]"), 7, make_method(size=4, stride=2))
    assert [[text for _, text in shown(prompt)] for prompt in engine.asked] == [
        ["d3", "d4", "d5", "d6"],
        ["d1", "d2", "d6", "d5"],
        ["d0", "d5", "d6"],
    ]


def test_the_status_is_that_of_the_worst_window_and_defects_say_where():
    """Ranks are 1-based for users, and those of the window at the time of its call."""
    answers = iter(["[2] > [1] > [3] > [4]", "[2] > [9]", "nothing"])
    result, _ = rerank_one(lambda prompt: Answer(text=next(answers)), 7, make_method(size=4, stride=2))
    assert result.status == "fallback"
    assert [defect.split(":")[0] for defect in result.defects] == ["ranks 2-5"] * 4 + ["ranks 1-3"] * 3
    assert result.defects[0] == "ranks 2-5: unknown [9]"
    assert result.defects[1] == "ranks 2-5: missing [1]"
    assert docids(result)[:3] == ["d0", "d2", "d1"]


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_order_is_not_asked(n):
    """No candidates or a single one: no call and no defect."""
    result, engine = rerank_one(say("mad"), n, make_method(num_passes=3))
    assert engine.asked == []
    assert (len(result.candidates), result.status, result.usage) == (n, "ok", Usage())


def test_only_the_first_k_are_asked_about():
    """The others follow in their original order, with decreasing scores."""
    result, engine = rerank_one(answer_by(lambda text: -number(text)), 10, make_method(top_k_candidates=4))
    assert docids(result) == ["d3", "d2", "d1", "d0", "d4", "d5", "d6", "d7", "d8", "d9"]
    assert [c.score for c in result.candidates] == [float(score) for score in range(10, 0, -1)]
    assert [len(shown(prompt)) for prompt in engine.asked] == [4]
    alone, engine = rerank_one(say("[2]"), 10, make_method(top_k_candidates=1))
    assert docids(alone) == [f"d{i}" for i in range(10)]
    assert engine.asked == []


def keep_order(prompt):
    """A model that leaves every window unchanged."""
    return Answer(text=" > ".join(f"[{label}]" for label, _ in shown(prompt)))


def shuffled(seed, qids, **options):
    """Each query's order after shuffling alone."""
    plan = make_method(shuffle_seed=seed, **options)
    results = rerank(ScriptedEngine(keep_order), [make_request(qid, 15) for qid in qids], plan)
    return {result.query.qid: docids(result) for result in results}


def test_shuffling_is_seeded_and_its_own_for_each_query():
    """The same seed gives the same order in any batch; another seed or query gives another order."""
    together = shuffled(7, ["a", "b", "c"])
    assert shuffled(7, ["b"])["b"] == together["b"]
    assert shuffled(7, ["c", "b", "a"]) == together
    assert shuffled(8, ["b"])["b"] != together["b"]
    assert together["a"] != together["b"] != together["c"]
    assert together["a"] != [f"d{i}" for i in range(15)]
    assert sorted(together["a"], key=number) == [f"d{i}" for i in range(15)]


def test_each_pass_shuffles_anew_and_only_what_is_asked_about():
    """Two passes over the same shuffled list would repeat the same windows."""
    assert shuffled(7, ["a"], num_passes=2) != shuffled(7, ["a"])
    twice = shuffled(7, ["a"], num_passes=2, pass_depth=5)["a"]
    assert twice[5:] == shuffled(7, ["a"])["a"][5:]
    assert twice[:5] != shuffled(7, ["a"])["a"][:5]
    assert shuffled(7, ["a"], top_k_candidates=5)["a"][5:] == [f"d{i}" for i in range(5, 15)]
    assert shuffled(None, ["a"])["a"] == [f"d{i}" for i in range(15)]


def test_first_orders_by_score_and_keeps_it():
    """Identifier logits determine the order; the last logit of a passage is its model score."""
    result, engine = rerank_one(score_by(number), 30, make_method(template="rank_zephyr_alpha", card=FIRST))
    assert docids(result)[:10] == [f"d{i}" for i in range(29, 19, -1)]
    assert all(candidate.model_score == number(candidate.docid) for candidate in result.candidates)
    assert [prompt.read for prompt in engine.asked] == ["first-token", "first-token"]
    assert engine.asked[0].identifiers == tuple("ABCDEFGHIJKLMNOPQRST")
    assert all(prompt.text.endswith("<|assistant|>[") and prompt.max_new_tokens == 1 for prompt in engine.asked)


def test_ties_keep_their_order():
    """Equal scores carry no information, so nothing moves."""
    result, _ = rerank_one(say(""), 5, make_method())
    first, _ = rerank_one(
        lambda prompt: Answer(scores=(1.0, 2.0, 1.0, 2.0, 1.0)),
        5,
        make_method(template="rank_zephyr_alpha", card=FIRST),
    )
    assert docids(first) == ["d1", "d3", "d0", "d2", "d4"]
    assert docids(result) == [f"d{i}" for i in range(5)]


def test_identifiers_that_a_server_did_not_tell_follow_in_their_order():
    """-inf: not among a server's top log-probabilities. A defect names each, and it gets no model score."""
    scores = (-1.0, -math.inf, -0.5, -math.inf)
    result, _ = rerank_one(
        lambda prompt: Answer(scores=scores), 4, make_method(template="rank_zephyr_alpha", card=FIRST)
    )
    assert docids(result) == ["d2", "d0", "d1", "d3"]
    assert result.status == "repaired"
    assert result.defects == ("ranks 1-4: missing [B]", "ranks 1-4: missing [D]")
    assert [candidate.model_score for candidate in result.candidates] == [-0.5, -1.0, None, None]


def test_a_score_that_is_not_a_number_fails_its_query_and_names_the_docid():
    """NaN is never sorted. Candidates keep their order, and no score is invented."""
    result, _ = rerank_one(
        lambda prompt: Answer(scores=(1.0, math.nan, 2.0)), 3, make_method(template="rank_zephyr_alpha", card=FIRST)
    )
    assert result.status == "failed"
    assert result.error == "query 'q': the model's score of docid 'd1' is not a number (NaN)"
    assert [(c.docid, c.score) for c in result.candidates] == [("d0", 3.0), ("d1", 2.0), ("d2", 1.0)]


def test_scores_must_be_as_many_as_identifiers():
    """Too few scores cannot be matched with identifiers by position."""
    with pytest.raises(EngineError, match="expected 3 identifier scores, the engine returned 2"):
        order_by_score((1.0, 2.0), ("A", "B", "C"), ("d0", "d1", "d2"))
    assert order_by_score((), (), ()) == ((), ())
    assert order_by_score((0.0, -0.0), ("A", "B"), ("d0", "d1")) == ((0, 1), ())


def test_examples_and_a_system_message_are_in_the_prompt():
    """Examples come between the system message and the question; a given system message replaces the template's."""
    shots = (Message("user", (Span("Example question"),)), Message("assistant", (Span("[2] > [1]"),)))
    _, engine = rerank_one(keep_order, 2, make_method(system_message="Be brief.", few_shot=shots))
    (prompt,) = engine.asked
    assert prompt.text.startswith(
        "<|system|> Be brief.\n<|user|> Example question\n<|assistant|> [2] > [1]\n<|user|> I will provide you with 2"
    )
    assert [message.role for message in prompt.messages] == ["system", "user", "assistant", "user"]


def test_passages_are_named_numbered_and_cannot_pose_as_others():
    """`[2]` in a passage or query is neutralized; letters only if they are the identifiers."""
    _, engine = rerank_one(keep_order, 2, make_method(), doc=lambda i: {"title": "T", "text": f"see [1] [B] {i}"})
    assert shown(engine.asked[0]) == [
        ("1", "Title: T Content: see (1) [B] 0"),
        ("2", "Title: T Content: see (1) [B] 1"),
    ]
    assert engine.asked[0].identifiers == ("1", "2")
    plan = make_method(template="rank_zephyr_alpha", card=FIRST)
    _, engine = rerank_one(score_by(len), 2, plan, doc=lambda i: {"text": f"see [1] [B] {i}"})
    assert shown(engine.asked[0])[0] == ("A", "see (1) (B) 0")


def test_passages_are_cut_at_the_cards_words():
    """The card's max_passage_words is the training value."""
    plan = make_method(card={"max_passage_words": 3})
    _, engine = rerank_one(keep_order, 2, plan, doc=lambda i: {"text": "one two  three four"})
    assert shown(engine.asked[0]) == [("1", "one two three"), ("2", "one two three")]


def test_first_stage_scores_are_shown_where_the_template_asks_for_them():
    """InsertRank shows them with the passages."""
    _, engine = rerank_one(keep_order, 2, make_method(template="insert_rank"))
    assert "BM25 score for passge [1]: 2.000" in engine.asked[0].text
    assert "BM25 score for passge [2]: 1.000" in engine.asked[0].text


def test_a_query_too_long_for_the_context_fails_and_is_named():
    """The others are reranked; the message says what to change."""
    plan = make_method(card={"context_tokens": 160})
    requests = [make_request("short", 3), make_request("long " * 200, 3), make_request("other", 3)]
    results = rerank(ScriptedEngine(keep_order), requests, plan)
    assert [result.status for result in results] == ["ok", "failed", "ok"]
    assert results[1].error.startswith(f"query {'long ' * 200!r}: the prompt takes ")
    assert "--context-size" in results[1].error
    assert docids(results[1]) == ["d0", "d1", "d2"]


def test_a_passage_without_text_fails_its_query_and_is_named():
    """Users need query and docid to find the record."""
    result, _ = rerank_one(keep_order, 2, make_method(), doc=lambda i: {"text": "t"} if i == 0 else {"id": 1})
    assert result.status == "failed"
    assert result.error.startswith("query 'q': docid 'd1': passage without text: expected one of text, ")


def test_full_windows_can_be_asked_for():
    """--no-variable-passages: fewer candidates than the window size is an error."""
    plan = make_method(size=4, stride=2, short_windows=False, num_passes=2, pass_depth=4)
    assert rerank_one(keep_order, 4, plan)[0].status == "ok"
    result, engine = rerank_one(keep_order, 3, plan)
    assert "query 'q': 3 candidates for a window of 4" in result.error
    assert engine.asked == []


@pytest.mark.parametrize(
    ("n", "size", "stride", "shortest", "full"),
    [
        (25, 20, 10, 15, 20),
        (5, 4, 2, 3, 4),
        (99, 20, 10, 19, 90),
        (22, 20, 20, 2, 20),
        (7, 4, 2, 3, 6),
        (9, 4, 3, 3, 7),
    ],
)
def test_a_short_window_is_found_before_the_first_is_asked(n, size, stride, shortest, full):
    """The number is the query's, not the window's; the advice works."""
    plan = make_method(size=size, stride=stride, short_windows=False)
    result, engine = rerank_one(keep_order, n, plan)
    assert engine.asked == []
    assert result.error == (
        f"query 'q': its {n} candidates leave a window of {shortest} (--window-size {size} --stride {stride}), but "
        f"--no-variable-passages requires full windows; use --top-k-candidates {full}, or other windows"
    )
    plan = make_method(size=size, stride=stride, short_windows=False, top_k_candidates=full)
    result, engine = rerank_one(keep_order, n, plan)
    assert result.status == "ok"
    assert {len(prompt.identifiers) for prompt in engine.asked} == {size}


@pytest.mark.parametrize(("n", "size", "stride"), [(21, 20, 20), (0, 4, 2), (1, 4, 2), (8, 4, 2), (100, 20, 10)])
def test_a_window_of_one_is_not_asked_and_so_not_short(n, size, stride):
    """The same holds for full windows."""
    result, engine = rerank_one(keep_order, n, make_method(size=size, stride=stride, short_windows=False))
    assert result.status == "ok"
    assert all(len(prompt.identifiers) == size for prompt in engine.asked)


def test_a_trace_says_what_was_asked_answered_and_read():
    """One entry per window, in order of execution; none unless requested."""
    answers = iter(["[2] > [1]", "x"])
    plan = make_method(size=2, stride=1, with_trace=True)
    result, engine = rerank_one(
        lambda prompt: Answer(text=next(answers), usage=Usage(calls=1, prompt_tokens=5)), 3, plan
    )
    first, second = result.trace
    assert (first.start, first.docids, first.order, first.status) == (1, ("d1", "d2"), (1, 0), "ok")
    assert (first.response, first.prompt, first.scores) == ("[2] > [1]", engine.asked[0].text, None)
    assert first.usage == Usage(calls=1, prompt_tokens=5)
    assert (second.start, second.docids, second.order, second.status) == (0, ("d0", "d2"), (0, 1), "fallback")
    assert second.defects == ("missing [1]", "missing [2]")
    assert rerank_one(keep_order, 3, make_method())[0].trace == ()


def test_the_request_is_left_as_it_was():
    """A request may be reranked again by another model."""
    request = make_request("q", 5)
    before = make_request("q", 5)
    rerank(ScriptedEngine(answer_by(lambda text: -number(text))), [request], make_method())
    assert request == before


@pytest.mark.parametrize(("option", "value"), [("num_passes", 0), ("top_k_candidates", 0), ("top_k_candidates", -1)])
def test_a_plan_that_reranks_nothing_is_refused(option, value):
    """Zero passes would return the first stage as if ranked by a model."""
    with pytest.raises(ConfigError, match=f"{option}: expected at least 1, found {value}"):
        RankingSettings(**{option: value})


def test_a_flow_asks_for_one_window_at_a_time_and_does_no_io():
    """It is a generator: it yields prompts, receives answers and returns the result."""
    flow = make_method().flow(make_request("q", 2))
    (prompt,) = next(flow)
    assert (prompt.read, prompt.identifiers, prompt.max_new_tokens) == ("text", ("1", "2"), 3)
    with pytest.raises(StopIteration) as stop:
        flow.send((Answer(text="[2] > [1]"),))
    assert docids(stop.value.value) == ["d1", "d0"]

"""Pairwise reranking: which pairs are compared, how answers are aggregated, and what it costs."""

from __future__ import annotations

import itertools
import math
import re

import pytest
from ranking_fakes import docids, make_request, number

from rankllm_core.card import PairwiseCard
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.pairs import ComparisonEncoder
from rankllm_core.prompts.template import load_template
from rankllm_core.types import Usage
from rankllm_infer.engines.base import Answer, EngineError
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.ranking.pairwise import PairwiseMethod
from rankllm_infer.ranking.settings import RankingSettings
from rankllm_infer.scheduling.pool import FlowPool

CARD = PairwiseCard(template=load_template("pairwise"))


def shown(prompt):
    """The two passages of a prompt, in prompt order."""
    return tuple(re.search(rf"^Passage {letter}: (.*)$", prompt.text, re.MULTILINE)[1] for letter in "AB")


def answer_by(margin):
    """Answers a comparison with the logit difference of two passages' numbers, first minus second."""

    def answer(prompt):
        first, second = (number(text) for text in shown(prompt))
        return Answer(scores=(margin(first, second), 0.0), usage=Usage(calls=1, prompt_tokens=7))

    return answer


def larger(first, second):
    """The passage with the larger number is preferred."""
    return 3.0 if first > second else -3.0


def rerank(margin, n, *, answer=None, reverse=False, card=CARD, **settings):
    """Result of one request, with engine and method. answer: replaces answering by the margin."""
    engine = ScriptedEngine(answer or answer_by(margin), reverse=reverse)
    method = PairwiseMethod.with_tokenizer(card, RankingSettings(**settings), None)
    (result,) = FlowPool(engine).run([make_request("q", n)], method.flow)
    return result, engine, method


def logit(probability):
    """Logit difference for a probability."""
    return math.log(probability / (1 - probability))


# All pairs.


def test_all_pairs_are_summed_as_duot5_does():
    """SYM-SUM by hand: s_0 = .9 + .6 + (1 - .2) + (1 - .7) = 2.6, s_1 = .2 + .5 + .1 + .6 = 1.4, s_2 = 2."""
    p = {(0, 1): 0.9, (0, 2): 0.6, (1, 0): 0.2, (1, 2): 0.5, (2, 0): 0.7, (2, 1): 0.4}
    result, engine, method = rerank(lambda a, b: logit(p[a, b]), 3)
    assert docids(result) == ["d0", "d2", "d1"]
    assert [c.model_score for c in result.candidates] == pytest.approx([2.6, 2.0, 1.4])
    assert [c.score for c in result.candidates] == pytest.approx([2.6, 2.0, 1.4], rel=1e-6)
    assert result.usage == Usage(calls=6, rounds=1, prompt_tokens=42)
    assert (result.n_ranked, result.status, method.n_prompts(3), len(engine.asked)) == (3, "ok", 6, 6)


@pytest.mark.parametrize("n", [2, 5, 17, 24])
def test_every_pair_is_asked_once_in_both_orders(n):
    """n (n - 1) prompts, predicted exactly, at most 256 of them in flight."""
    result, engine, method = rerank(larger, n)
    assert sorted(map(shown, engine.asked)) == sorted(
        (f"d{i}", f"d{j}") for i, j in itertools.permutations(range(n), 2)
    )
    assert (result.usage.calls, result.usage.rounds, method.n_prompts(n)) == (n * (n - 1), 1, n * (n - 1))
    assert docids(result) == [f"d{i}" for i in range(n - 1, -1, -1)]
    flow = method.flow(make_request("q", n))
    assert len(next(flow)) == min(256, n * (n - 1))


def test_ties_and_cycles_keep_the_first_stage_order():
    """Rock, paper, scissors: all sums are equal. Scores are still strictly decreasing."""
    result, _, _ = rerank(lambda a, b: 2.0 if (a - b) % 3 == 1 else -2.0, 3)
    assert docids(result) == ["d0", "d1", "d2"]
    assert len({c.model_score for c in result.candidates}) == 1
    first, second, third = (c.score for c in result.candidates)
    assert first > second > third


def test_candidates_beyond_k_follow_in_first_stage_order():
    """Below the last compared one, without a model score."""
    result, engine, method = rerank(larger, 6, top_k_candidates=3)
    assert docids(result) == ["d2", "d1", "d0", "d3", "d4", "d5"]
    assert (len(engine.asked), method.n_prompts(6), result.n_ranked) == (6, 6, 3)
    assert [c.model_score is None for c in result.candidates] == [False] * 3 + [True] * 3
    scores = [c.score for c in result.candidates]
    assert all(high > low for high, low in itertools.pairwise(scores))


# Sorting strategies.


def test_heapsort_asks_what_a_heap_needs():
    """By hand, the larger number being the better: the heap of 0 1 2 3 4 needs 3-4, 1-4, 4-2 (roots 1 and 0 with their
    children: 1 against 4, then 4-2 and 0-4, then 3-1 below and 0-3), and its root is the best."""
    result, engine, _ = rerank(larger, 5, strategy="heapsort", rank_top_k=1)
    asked = {tuple(sorted(map(number, shown(prompt)))) for prompt in engine.asked}
    assert asked == {(3, 4), (1, 4), (2, 4), (0, 4), (1, 3), (0, 3)}
    assert docids(result) == ["d4", "d0", "d1", "d2", "d3"]
    assert (result.usage.calls, result.n_ranked) == (12, 1)
    assert [c.score for c in result.candidates] == [5.0, 4.0, 3.0, 2.0, 1.0]
    assert all(c.model_score is None for c in result.candidates)


@pytest.mark.parametrize("strategy", ["heapsort", "bubble"])
@pytest.mark.parametrize(("n", "k"), [(1, 3), (2, 1), (3, 2), (9, 4), (20, 10), (31, 3), (12, 40)])
def test_the_best_k_are_found_within_the_prompts_that_were_announced(strategy, n, k):
    """A permuted first stage and an infallible model: the top k are exact, the rest keep their order."""
    value = [(7 * place + 3) % 37 for place in range(n)]  # 37 is prime: all differ
    result, engine, method = rerank(
        lambda a, b: float(value[a] - value[b]), n, strategy=strategy, rank_top_k=k, reverse=True
    )
    best = sorted(range(n), key=lambda place: -value[place])[:k]
    rest = [place for place in range(n) if place not in best]
    assert docids(result) == [f"d{place}" for place in (*best, *rest)]
    assert result.usage.calls == len(engine.asked) <= method.n_prompts(n) <= n * (n - 1)
    assert len({shown(prompt) for prompt in engine.asked}) == len(engine.asked)
    assert result.n_ranked == min(k, n)


@pytest.mark.parametrize(
    ("strategy", "n", "k", "prompts"),
    [
        # A heap of 7: two children's families of 2 comparisons, the root's of 4. Then 6 left: 2 + 2 at the most.
        ("heapsort", 7, 1, 2 * (2 + 2 + 4)),
        ("heapsort", 7, 2, 2 * (2 + 2 + 4 + 4)),
        ("heapsort", 3, 3, 2 * 3),
        ("bubble", 10, 3, 2 * (9 + 8 + 7)),
        ("bubble", 4, 9, 2 * (3 + 2 + 1)),
        ("bubble", 1, 1, 0),
        (None, 50, None, 50 * 49),
    ],
)
def test_prompts_are_counted_beforehand(strategy, n, k, prompts):
    """By hand; never more than all pairs in both orders."""
    method = PairwiseMethod.with_tokenizer(CARD, RankingSettings(strategy=strategy, rank_top_k=k), None)
    assert method.n_prompts(n) == prompts


def test_the_passes_of_bubble_run_at_the_same_time():
    """Pass p follows pass p - 1 at a distance of two pairs: n + k - 2 rounds minus those whose pairs are known."""
    result, _, _ = rerank(larger, 12, strategy="bubble", rank_top_k=3)
    assert result.usage.rounds <= 12 + 3 - 2 + 1
    assert result.usage.calls == 2 * (11 + 10 + 9)


def test_a_good_first_stage_makes_bubble_cheap():
    """If nothing moves, every pass meets the same 99 neighbouring pairs of 100, each compared once in both orders."""
    result, _, method = rerank(lambda a, b: float(b - a), 100, strategy="bubble", rank_top_k=10)
    assert (result.usage.calls, result.usage.rounds) == (2 * 99, 99)
    assert method.n_prompts(100) == 2 * sum(range(90, 100)) == 1890


@pytest.mark.parametrize("strategy", ["all-pairs", "heapsort", "bubble"])
def test_answers_that_contradict_each_other_give_a_total_order(strategy):
    """Each passage once, and the same order for any order of answers; equal preferences keep the first-stage order."""
    settings = {"strategy": strategy, **({} if strategy == "all-pairs" else {"rank_top_k": 4})}

    def odd(first, second):
        return ((first * 7 + second * 11) % 5) - 2.0

    one, other = (rerank(odd, 13, reverse=reverse, **settings)[0] for reverse in (False, True))
    assert docids(one) == docids(other)
    assert sorted(docids(one), key=number) == [f"d{i}" for i in range(13)]
    even, _, _ = rerank(lambda a, b: 1.0, 13, **settings)
    assert docids(even) == [f"d{i}" for i in range(13)]


# What is asked, and how it is read.


def test_prompts_that_show_the_same_passage_first_share_it(smollm2_tokenizer):
    """Shared prefix ids of a group, counted by hand: the query, the first passage, and what precedes them."""
    card = PairwiseCard(template=load_template("pairwise"))
    method = PairwiseMethod.with_tokenizer(card, RankingSettings(), smollm2_tokenizer)
    prompts = next(method.flow(make_request("q", 4)))
    assert [shown(prompt) for prompt in prompts[:3]] == [("d0", "d1"), ("d0", "d2"), ("d0", "d3")]
    for start in range(0, 12, 3):
        group = prompts[start : start + 3]
        texts = [smollm2_tokenizer.decode(list(p.token_ids[: p.n_shared])) for p in group]
        assert len(set(texts)) == 1
        assert texts[0].endswith(f"Passage A: d{start // 3}\n\nPassage B: d")


def test_a_passage_is_cut_before_it_is_put_in(smollm2_tokenizer):
    """Each at its own limit, so that the question after them is preserved."""
    encoder = ComparisonEncoder(smollm2_tokenizer, load_template("pairwise_raw"), query_tokens=2, passage_tokens=3)
    text, ids = encoder.encode("one two three", "a b c d e f", "<|im_end|> g h i j")
    assert 'query "one two", which' in text
    assert "Passage A: a b c\n\n" in text
    assert text.endswith("\n\nAnswer with the letter A or B alone:")
    assert 2 not in ids  # <|im_end|> of a passage stays text


def test_what_a_server_did_not_report_is_a_defect():
    """It counts as a log-probability of -20; the result names the pair."""

    def answer(prompt):
        scores = (-math.inf, -0.5) if shown(prompt) == ("d0", "d1") else (-0.5, -3.0)
        return Answer(scores=scores, usage=Usage(calls=1))

    result, _, _ = rerank(None, 2, answer=answer)
    assert docids(result) == ["d1", "d0"]
    assert (result.status, result.defects) == ("repaired", ("docids 'd0' and 'd1': missing [A]",))


@pytest.mark.parametrize(
    ("scores", "said"),
    [((0.1,), "expected the scores of two tokens"), ((math.nan, 1.0), "expected finite numbers")],
)
def test_an_answer_that_is_no_comparison_fails_its_query(scores, said):
    """With both docids; the candidates keep their order."""
    result, _, _ = rerank(None, 3, answer=lambda prompt: Answer(scores=scores))
    assert (result.status, docids(result)) == ("failed", ["d0", "d1", "d2"])
    assert said in result.error
    assert "'d0' and 'd1'" in result.error


def test_an_engines_error_fails_the_query():
    """Whichever pair it belongs to."""
    result, _, _ = rerank(None, 3, answer=lambda prompt: EngineError("out of memory"))
    assert (result.status, result.error) == ("failed", "query 'q': out of memory")


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_compare_is_not_asked(n):
    """It is returned unchanged."""
    for strategy in (None, "heapsort", "bubble"):
        result, engine, method = rerank(larger, n, strategy=strategy)
        assert (docids(result), engine.asked, method.n_prompts(n)) == ([f"d{i}" for i in range(n)], [], 0)
        assert (result.status, result.n_ranked) == ("ok", n)


def test_a_trace_holds_every_comparison():
    """Both docids in prompt order, both scores, and which was preferred."""
    result, _, _ = rerank(larger, 2, with_trace=True)
    assert [(t.docids, t.order, t.scores, t.start) for t in result.trace] == [
        (("d0", "d1"), (1, 0), (-3.0, 0.0), None),
        (("d1", "d0"), (0, 1), (3.0, 0.0), None),
    ]


def test_a_passage_that_is_not_shown_is_said():
    """A template that truncates passages to one word shows two candidates alike."""
    card = PairwiseCard(template=load_template("pairwise"), passage_tokens=1)
    engine = ScriptedEngine(lambda prompt: Answer(scores=(0.0, 0.0)))
    method = PairwiseMethod.with_tokenizer(card, RankingSettings(), None)
    request = make_request("q", 2, doc=lambda i: {"text": f"same start {i}"})
    (result,) = FlowPool(engine).run([request], method.flow)
    assert result.defects == ("docid 'd1': shown exactly as docid 'd0', whose passage differs",)


@pytest.mark.parametrize(
    ("weight", "strategy", "order"),
    [(1.0, None, ["d0", "d1", "d2"]), (0.0, None, ["d2", "d1", "d0"]), (1.0, "heapsort", ["d0", "d1", "d2"])],
)
def test_the_first_stage_can_be_fused_in(weight, strategy, order):
    """By sums if available, else by ranks."""
    card = PairwiseCard(template=load_template("pairwise"), fuse_weight=weight)
    result, _, _ = rerank(larger, 3, card=card, strategy=strategy)
    assert docids(result) == order


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"strategy": "tournament"},
            "--strategy tournament: is a listwise strategy, .* all-pairs, heapsort, bubble",
        ),
        ({"strategy": "sliding"}, "--strategy sliding: is a listwise strategy"),
        ({"rank_top_k": 3}, "--rank-top-k has no effect with --strategy all-pairs; use --top-k-candidates"),
    ],
)
def test_what_does_not_go_together_is_said_before_a_model_is_loaded(settings, said):
    """By the check alone."""
    with pytest.raises(ConfigError, match=said):
        PairwiseMethod.check(CARD, RankingSettings(**settings))


def test_a_server_needs_a_chat_template():
    """The chat template belongs to the server."""
    with pytest.raises(ConfigError, match="template duot5: has no chat turns"):
        PairwiseMethod.with_tokenizer(PairwiseCard(template=load_template("duot5")), RankingSettings(), None)


def test_an_instruction_has_no_place():
    """Reported for the query."""
    from dataclasses import replace

    request = make_request("q", 2)
    request = replace(request, query=replace(request.query, instruction="strict"))
    method = PairwiseMethod.with_tokenizer(CARD, RankingSettings(), None)
    (result,) = FlowPool(ScriptedEngine(answer_by(larger))).run([request], method.flow)
    assert (
        result.error == "query 'q': its instruction has no effect: pairwise prompts take no instruction; leave it out"
    )

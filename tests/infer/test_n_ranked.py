"""A result reports how many candidates the model has ranked; the others are in first-stage order."""

from __future__ import annotations

import json

import pytest
from ranking_fakes import PlainPairWriter, answer_by, docids, make_method, make_request, number, rerank

from rankllm_core.card import PointwiseCard
from rankllm_core.data.records import result_to_dict
from rankllm_core.prompts.template import load_template
from rankllm_core.types import Result
from rankllm_infer.engines.base import Answer, EngineError
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.jobs.journal import Journal
from rankllm_infer.ranking.fuse import fuse
from rankllm_infer.ranking.pointwise import PointwiseMethod
from rankllm_infer.ranking.settings import RankingSettings
from rankllm_infer.scheduling.pool import FlowPool


def backwards(prompt):
    """The last candidate is the best."""
    return answer_by(lambda text: -number(text))(prompt)


def says(text):
    """An engine that always returns this answer."""
    return lambda prompt: Answer(text=text)


def ranked(answer, n, **plan):
    """Result of n candidates."""
    (result,) = rerank(ScriptedEngine(answer), [make_request("q", n)], make_method(**plan))
    return result


@pytest.mark.parametrize(
    ("n", "options", "expected"),
    [
        (12, {"size": 8, "stride": 4, "top_k_candidates": 4}, 4),
        (12, {"size": 8, "stride": 4, "top_k_candidates": 10}, 10),
        (12, {"size": 8, "stride": 4}, 12),
        (12, {"size": 8, "stride": 4, "top_k_candidates": 99}, 12),
        (12, {"size": 8, "stride": 4, "num_passes": 2, "pass_depth": 3}, 12),
        (12, {"size": 8, "stride": 4, "shuffle_seed": 1, "permutations": 3}, 12),
        (12, {"size": 12, "stride": 4, "strategy": "full"}, 12),
        (12, {"size": 8, "strategy": "tournament", "stride": 4}, 4),
        (12, {"size": 8, "strategy": "top-down", "rank_top_k": 2, "stride": 4}, 2),
        (8, {"size": 8, "strategy": "top-down", "rank_top_k": 2, "stride": 4}, 8),
        (12, {"size": 8, "strategy": "tournament", "stride": 4, "top_k_candidates": 8}, 8),
        (1, {"size": 8, "stride": 4}, 1),
        (0, {"size": 8, "stride": 4}, 0),
    ],
)
def test_what_the_windows_ranked_is_counted(n, options, expected):
    """All requested candidates; for a top-k search k of them, unless one window contained all."""
    assert ranked(backwards, n, **options).n_ranked == expected


def test_what_is_behind_is_in_first_stage_order():
    """The 4 reranked ones, then the other 8 in their original order."""
    result = ranked(backwards, 12, size=8, stride=4, top_k_candidates=4)
    assert docids(result) == ["d3", "d2", "d1", "d0", *(f"d{i}" for i in range(4, 12))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("I cannot rank these.", 0), ("", 0), ("[2] > [1]", 2), ("[3]", 1), ("[9] > [8]", 0), ("[2] > [2] > [4]", 2)],
)
def test_what_an_answer_leaves_out_is_not_ranked(text, expected):
    """One window of five: the named passages come first."""
    assert ranked(says(text), 5).n_ranked == expected


def test_a_window_without_a_ranking_ends_the_count_where_its_candidates_stand():
    """Of 12, windows of 8 by 4: the lower one has no ranking, the upper one ranks its own eight."""

    def answer(prompt):
        return Answer(text="no") if "d11" in prompt.text else backwards(prompt)

    result = ranked(answer, 12, size=8, stride=4)
    assert (result.status, result.n_ranked) == ("fallback", 8)
    assert docids(result) == [*(f"d{i}" for i in range(7, -1, -1)), "d8", "d9", "d10", "d11"]


def test_answers_held_to_a_few_count_as_a_few():
    """With `decode_top_k` the top two of the single window are chosen; the others keep their order."""
    result = ranked(says("[5] > [4] > [1] > [2] > [3]"), 5, free_decoding=False, decode_top_k=2)
    assert result.n_ranked == 2


def test_identifiers_that_a_server_does_not_tell_are_not_ranked():
    """FIRST with a server's top tokens: the third has no score."""
    scores = Answer(scores=(1.0, 3.0, float("-inf"), 2.0), text="")
    result = ranked(
        lambda prompt: scores, 4, template="rank_zephyr_alpha", card={"identifiers": "alpha", "answer": "first-token"}
    )
    assert (docids(result), result.n_ranked) == (["d1", "d3", "d0", "d2"], 3)


@pytest.mark.parametrize(("options", "expected"), [({}, 5), ({"top_k_candidates": 2}, 2), ({"top_k_candidates": 9}, 5)])
def test_what_was_scored_is_counted(options, expected):
    """Pointwise: every scored pair."""
    engine = ScriptedEngine(lambda prompt: Answer(text="", scores=(float(number(prompt.text.split("|")[2])),)))
    card = PointwiseCard(template=load_template("rankllama"))
    method = PointwiseMethod(card, RankingSettings(**options), PlainPairWriter())
    pool = FlowPool(engine)
    (result,) = pool.run([make_request("q", 5)], method.flow)
    assert result.n_ranked == expected


def test_a_failed_query_is_not_ranked():
    """Its candidates are in first-stage order."""
    engine = ScriptedEngine(lambda prompt: EngineError("down"))
    pool = FlowPool(engine)
    (result,) = pool.run([make_request("q", 3)], make_method().flow)
    assert (result.status, result.n_ranked) == ("failed", 0)


def test_fusion_may_bring_what_is_not_ranked_between():
    """Of five, the answer names only d4: with a large weight the first stage's d0 precedes it, so the count is 0."""
    request = make_request("q", 5)
    result = ranked(says("[5]"), 5)
    assert result.n_ranked == 1
    fused = fuse(result, request, 0.5, n_ranked=None, by_rank=True)
    assert fused.n_ranked == (1 if docids(fused)[0] == "d4" else 0)
    assert fuse(result, request, 0.9, n_ranked=None, by_rank=True).n_ranked == 0
    whole = ranked(backwards, 5)
    assert fuse(whole, request, 0.9, n_ranked=None, by_rank=True).n_ranked == 5


def test_it_is_written_and_kept_in_the_journal(tmp_path):
    """Next to the usage; a result without it, from an older journal, writes nothing."""
    request = make_request("q", 12)
    result = ranked(backwards, 12, size=8, stride=4, top_k_candidates=4)
    assert json.loads(json.dumps(result_to_dict(result)))["n_ranked"] == 4
    assert "n_ranked" not in result_to_dict(Result(query=request.query, candidates=()))
    with Journal(tmp_path / "j.jsonl") as journal:
        journal.begin({"model": "m"})
        journal.add(result)
    with Journal(tmp_path / "j.jsonl") as journal:
        assert journal.result(request) == result

"""Pointwise reranking: one score per pair, sorted, and written such that ties cannot reorder it."""

from __future__ import annotations

import math
import struct
from itertools import pairwise

import pytest
from ranking_fakes import PlainPairWriter, docids, make_request, number

from rankllm_core.card import PointwiseCard
from rankllm_core.errors import ConfigError
from rankllm_core.prompts.pairs import PairEncoder, PairLimits
from rankllm_core.prompts.template import load_template
from rankllm_core.types import Usage
from rankllm_infer.engines.base import Answer, EngineError
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.ranking.pointwise import MessagePairWriter, PointwiseMethod, TokenPairWriter
from rankllm_infer.ranking.settings import RankingSettings
from rankllm_infer.scheduling.pool import FlowPool

HEAD = PointwiseCard(template=load_template("rankllama"))
YES_NO = PointwiseCard(template=load_template("yes_no"), head="yes-no", query_tokens=8, passage_tokens=16)


def rerank(answer, requests, *, batch_size=8, reverse=False, **options):
    """Results of a pool of pointwise flows, and the engine."""
    engine = ScriptedEngine(answer, batch_size=batch_size, reverse=reverse)
    method = PointwiseMethod(HEAD, RankingSettings(**options), PlainPairWriter())
    results = FlowPool(engine).run(requests, method.flow)
    return list(results), engine


def rerank_one(answer, n, **options):
    """The single result."""
    (result,), _ = rerank(answer, [make_request("q", n)], **options)
    return result


def score_by(key):
    """Scores each pair by a key of its passage."""
    return lambda prompt: Answer(scores=(key(prompt.text.split("|")[2]),), usage=Usage(calls=1, prompt_tokens=4))


def below(value):
    """The next smaller float32 of a positive one, by its bits."""
    return struct.unpack("<f", struct.pack("<I", struct.unpack("<I", struct.pack("<f", value))[0] - 1))[0]


def test_pairs_are_sorted_by_their_score():
    """The run contains the model's score, which is also recorded as the model score."""
    result = rerank_one(score_by(lambda text: float(number(text))), 5)
    assert docids(result) == ["d4", "d3", "d2", "d1", "d0"]
    assert [candidate.score for candidate in result.candidates] == [4.0, 3.0, 2.0, 1.0, 0.0]
    assert [candidate.model_score for candidate in result.candidates] == [4.0, 3.0, 2.0, 1.0, 0.0]
    assert (result.status, result.defects) == ("ok", ())
    assert result.usage == Usage(calls=5, rounds=1, prompt_tokens=20)


def test_ties_keep_the_first_stage_order_and_are_lowered_by_the_least_step():
    """trec_eval orders ties by docid; strictly decreasing float32 scores avoid ties."""
    result = rerank_one(score_by(lambda text: 1.5), 3)
    assert docids(result) == ["d0", "d1", "d2"]
    assert [c.score for c in result.candidates] == [1.5, below(1.5), below(below(1.5))]
    assert [c.model_score for c in result.candidates] == [1.5, 1.5, 1.5]


def test_scores_that_differ_in_double_precision_only_still_fall():
    """Runs are compared in single precision."""
    result = rerank_one(score_by(lambda text: 1.0 + number(text) * 1e-12), 3)
    assert docids(result) == ["d2", "d1", "d0"]
    assert [c.score for c in result.candidates] == [1.0, below(1.0), below(below(1.0))]


def test_candidates_beyond_k_follow_below_the_last_one_scored():
    """In first-stage order, each lower by the smallest step, and without a model score."""
    result, engine = rerank(score_by(lambda text: float(number(text))), [make_request("q", 6)], top_k_candidates=2)
    (result,) = result
    assert docids(result) == ["d1", "d0", "d2", "d3", "d4", "d5"]
    assert len(engine.asked) == 2
    scores = [struct.unpack("<f", struct.pack("<f", candidate.score))[0] for candidate in result.candidates]
    assert scores[:2] == [1.0, 0.0]
    assert all(above > under for above, under in pairwise(scores[1:]))
    assert scores[-1] > -1e-30
    assert [c.model_score for c in result.candidates] == [1.0, 0.0, None, None, None, None]


def test_nothing_to_score_is_not_asked():
    """A query without candidates is returned unchanged."""
    (result,), engine = rerank(score_by(len), [make_request("q", 0)])
    assert (result.candidates, result.status, engine.asked) == ((), "ok", [])


def test_one_candidate_is_scored():
    """Its score is of interest, although there is nothing to sort."""
    assert rerank_one(score_by(lambda text: 2.5), 1).candidates[0].score == 2.5


def test_all_pairs_of_a_query_are_given_to_the_engine_at_once():
    """It may batch them freely, also across queries."""
    _, engine = rerank(score_by(lambda text: 0.0), [make_request("a", 5), make_request("b", 4)], batch_size=64)
    assert engine.batches == [9]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
@pytest.mark.parametrize("reverse", [False, True])
def test_batching_never_shows_in_a_result(batch_size, reverse):
    """Each score belongs to its own pair, whatever else is in the batch."""
    requests = [make_request(f"q{i}", n) for i, n in enumerate([7, 0, 20, 1])]
    score = score_by(lambda text: float(number(text) * 7919 % 101))
    results, _ = rerank(score, requests, batch_size=batch_size, reverse=reverse)
    for request, result in zip(requests, results, strict=True):
        expected = sorted(request.candidates, key=lambda c: -(number(c.docid) * 7919 % 101))
        assert docids(result) == [candidate.docid for candidate in expected]


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 1e39])
def test_a_score_that_is_no_float32_number_fails_its_query_and_names_the_docid(score):
    """It is never sorted or written to a run. Other queries continue."""

    def answer(prompt):
        return Answer(scores=(score if prompt.text == "query q1||d2" else 1.0,))

    results, _ = rerank(answer, [make_request(f"q{i}", 3) for i in range(3)])
    assert [result.status for result in results] == ["ok", "failed", "ok"]
    assert results[1].error.startswith(f"query 'q1': the model's score of docid 'd2' is {score}, expected a finite")
    assert docids(results[1]) == ["d0", "d1", "d2"]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ((-0.1, -2.5), 2.4),
        ((-math.inf, -0.5), -19.5),
        ((-0.5, -math.inf), 19.5),
        ((-math.inf, -math.inf), 0.0),
        ((12.0, 15.0), -3.0),
    ],
)
def test_yes_against_no_is_one_number(scores, expected):
    """logit(yes) - logit(no); if a server does not report one of them, it counts as -20, as in the original."""
    result = rerank_one(lambda prompt: Answer(scores=scores), 1)
    assert result.candidates[0].model_score == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("scores", [(), (1.0, 2.0, 3.0)])
def test_a_pair_has_one_score_or_two(scores):
    """Any other number cannot be interpreted."""
    result = rerank_one(lambda prompt: Answer(scores=scores), 1)
    assert result.error.startswith("query 'q': docid 'd0': expected one score, or one for yes and one for no")


def test_an_engine_error_fails_its_query_alone():
    """One pair of one query was not answered."""

    def answer(prompt):
        return EngineError("gone") if prompt.text == "query q0||d1" else Answer(scores=(1.0,))

    results, _ = rerank(answer, [make_request("q0", 3), make_request("q1", 3)])
    assert [(result.status, result.error) for result in results] == [("failed", "query 'q0': gone"), ("ok", None)]


def test_a_passage_without_text_is_named():
    """Users need query and docid to find the record."""
    (result,), _ = rerank(score_by(len), [make_request("q", 2, doc=lambda i: {"title": "T"})])
    assert result.error.startswith("query 'q': docid 'd0': passage without text")


def test_title_and_text_are_given_apart():
    """The template decides how they are joined."""
    request = make_request("q", 1, doc=lambda i: {"title": "T", "contents": "words"})
    _, engine = rerank(score_by(lambda text: 0.0), [request])
    assert engine.asked[0].text == "query q|T|words"


def test_a_trace_holds_each_pair():
    """Prompt and answer, by first-stage rank."""
    (result,), engine = rerank(score_by(lambda text: float(number(text))), [make_request("q", 2)], with_trace=True)
    assert [(entry.start, entry.docids, entry.scores) for entry in result.trace] == [
        (0, ("d0",), (0.0,)),
        (1, ("d1",), (1.0,)),
    ]
    assert result.trace[1].prompt == engine.asked[1].text


def test_a_plan_that_scores_nothing_is_refused():
    """Zero candidates would return the first stage as if ranked by a model."""
    with pytest.raises(ConfigError, match="top_k_candidates: expected at least 1, found 0"):
        RankingSettings(top_k_candidates=0)


def test_pairs_for_a_score_head_carry_the_encoders_ids(llama2_tokenizer):
    """The same ids as in training; the text is for display."""
    encoder = PairEncoder(llama2_tokenizer, HEAD.template, limits=PairLimits())
    prompt = TokenPairWriter(encoder, HEAD).write("what", title="T", text="words")
    assert (prompt.read, prompt.identifiers) == ("head", ())
    assert prompt.token_ids == encoder.encode("what", title="T", text="words")
    assert prompt.text == "query: what document: T words"


def test_questions_are_read_at_yes_and_no(smollm2_tokenizer):
    """The first token of the answer decides."""
    encoder = PairEncoder(smollm2_tokenizer, YES_NO.template, limits=PairLimits(query_tokens=8, passage_tokens=16))
    prompt = TokenPairWriter(encoder, YES_NO).write("what", title="T", text="words")
    assert (prompt.read, prompt.identifiers) == ("first-token", ("yes", "no"))
    assert (prompt.text, prompt.token_ids) == encoder.encode_question("what", title="T", text="words")


def test_questions_for_a_server_are_messages():
    """Its tokenizer is unknown: three words are estimated as four tokens, for query and passage alike."""
    card = PointwiseCard(template=load_template("qwen3_reranker"), head="yes-no", query_tokens=8, passage_tokens=16)
    prompt = MessagePairWriter(card).write("q " * 50, title="T", text="w " * 50)
    assert [message.role for message in prompt.messages] == ["system", "user", "assistant"]
    assert f"<Query>: {' '.join(['q'] * 6)}\n<Document>: T {' '.join(['w'] * 11)}" in prompt.messages[1].content
    assert prompt.messages[2].content == "<think>\n\n</think>\n\n"
    assert (prompt.read, prompt.identifiers, prompt.max_new_tokens) == ("first-token", ("yes", "no"), 1)
    assert prompt.token_ids == ()


def test_a_server_has_no_score_head():
    """The error suggests a template."""
    with pytest.raises(ConfigError, match=r"no score head; use a yes/no template \(--prompt-template-path yes_no\)"):
        PointwiseMethod.with_tokenizer(HEAD, RankingSettings(), None)

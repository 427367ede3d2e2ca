"""`explain`: a response shows the model's calls and answers, only if requested."""

from __future__ import annotations

import pytest
from serving_fakes import Served, listwise, pointwise

from rankllm_core.card import PairwiseCard
from rankllm_core.prompts.template import load_template
from rankllm_core.types import Usage
from rankllm_infer.api import Reranker
from rankllm_infer.engines.base import Answer
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.ranking.comparison_prompts import MessageComparisonWriter
from rankllm_infer.ranking.pairwise import PairwiseMethod
from rankllm_infer.ranking.settings import RankingSettings
from rankllm_infer.serving.dialects.explanation import MAX_ANSWER_CHARACTERS, MAX_EXPLAINED_CALLS

SIX = ["dddd", "a", "ccc", "ffffff", "bb", "eeeee"]
"""The oracle ranks the shortest first: indices 1, 4, 2, 0, 5, 3."""


def explained(served, documents, *, path="/v2/rerank", **more):
    """Explanation of a ranking, and the response body."""
    body = served.post(path, {"query": "q", "documents": documents, "explain": True, **more}).json()
    return body["explanation"], body


def test_each_window_is_shown():
    """Two windows of four, from the bottom up, written by hand."""
    found, body = explained(Served(listwise(size=4, stride=2)), SIX)
    # Ranks 2-5 hold documents 2, 3, 4, 5, of lengths 3, 6, 2, 5; the shortest first: 4, 2, 5, 3.
    # Then ranks 0-3 hold 0, 1, 4, 2, of lengths 4, 1, 2, 3: 1, 4, 2, 0.
    common = {"scores": None, "status": "ok", "defects": [], "prompt_tokens": 10, "completion_tokens": 3}
    assert found == {
        "calls": [
            {"start": 2, "indices": [2, 3, 4, 5], "order": [2, 0, 3, 1], "response": "[3] > [1] > [4] > [2]", **common},
            {"start": 0, "indices": [0, 1, 4, 2], "order": [1, 2, 3, 0], "response": "[2] > [3] > [4] > [1]", **common},
        ],
        "n_omitted": 0,
        "n_ranked": 6,
    }
    assert [item["index"] for item in body["results"]] == [1, 4, 2, 0, 5, 3]


def test_each_pair_is_shown_with_its_score():
    """For a pointwise model: one document per call, in request order."""
    found, _ = explained(Served(pointwise()), ["worth 1", "worth 3"])
    assert [(call["start"], call["indices"], call["scores"]) for call in found["calls"]] == [
        (0, [0], [1.0]),
        (1, [1], [3.0]),
    ]


@pytest.mark.parametrize("path", ["/v2/rerank", "/v1/rerank", "/rerank"])
def test_every_api_with_room_for_it_explains_when_asked(path):
    """And only then; the ranking is the same."""
    served = Served(listwise())
    found, body = explained(served, SIX, path=path)
    plain = served.post(path, {"query": "q", "documents": SIX}).json()
    assert len(found["calls"]) == 2
    assert "explanation" not in plain
    assert plain["results"] == body["results"]
    assert body["meta"]["warnings"] == []


def test_an_array_has_no_room_for_it():
    """The API of text-embeddings-inference rejects the request in its own format."""
    done = Served(pointwise()).post("/rerank", {"query": "q", "texts": ["worth 1"], "explain": True})
    assert done.status_code == 422
    assert done.json()["error"].startswith('explain: responses to "texts" are arrays and cannot contain it')


def test_a_fallback_shows_the_answer_that_was_no_ranking():
    """With its defects, naming documents by their index."""
    mad = Served(listwise(answer=lambda prompt: Answer(text="I cannot rank these.")))
    (call,) = explained(mad, ["a", "b"])[0]["calls"]
    assert (call["status"], call["response"], call["order"]) == ("fallback", "I cannot rank these.", [0, 1])
    assert call["defects"] == ["missing [1]", "missing [2]"]


def test_a_request_explains_with_its_own_strategy():
    """A tournament of threes: only its first windows are slices of the ranking."""
    found, body = explained(Served(listwise(size=6, stride=3)), SIX, strategy="tournament", window_size=3)
    assert len(found["calls"]) == body["meta"]["calls"] == 3
    assert sorted(found["calls"][0]["indices"] + found["calls"][1]["indices"]) == [0, 1, 2, 3, 4, 5]
    assert found["n_ranked"] == 1  # half a window of three, rounded down, is what a tournament looks for


def test_an_explanation_is_bounded():
    """In the number of calls, and in the length of an answer, whose middle is omitted; omissions are counted."""
    n = MAX_EXPLAINED_CALLS + 5
    served = Served(pointwise(), max_documents=n)
    found, body = explained(served, [f"worth {number}" for number in range(n)])
    assert (len(found["calls"]), found["n_omitted"]) == (MAX_EXPLAINED_CALLS, 5)
    assert (body["meta"]["calls"], len(body["results"])) == (n, n)

    thoughts = "<" + "x" * MAX_ANSWER_CHARACTERS + "> [2] > [1]"
    served = Served(listwise(answer=lambda prompt: Answer(text=thoughts, usage=Usage(calls=1))))
    (call,) = explained(served, ["a", "b"])[0]["calls"]
    half = MAX_ANSWER_CHARACTERS // 2
    n_omitted = len(thoughts) - MAX_ANSWER_CHARACTERS
    assert call["response"] == f"{thoughts[:half]}\n[... {n_omitted} characters ...]\n{thoughts[-half:]}"
    assert call["order"] == [1, 0]


def test_the_first_of_many_comparisons_are_shown():
    """All pairs of 40 are 1,560 calls; the model prefers the first passage shown, by e / (e + 1)."""
    card = PairwiseCard(template=load_template("pairwise"))
    method = PairwiseMethod(card, RankingSettings(), MessageComparisonWriter(card))
    answer = Answer(scores=(-1.0, -2.0), usage=Usage(calls=1))
    served = Served(Reranker(method, ScriptedEngine(lambda prompt: answer)))
    found, body = explained(served, [f"passage {number}" for number in range(40)])
    assert (len(found["calls"]), found["n_omitted"], found["n_ranked"]) == (MAX_EXPLAINED_CALLS, 560, 40)
    first = found["calls"][0]
    assert (first["start"], first["indices"], first["order"], first["scores"]) == (None, [0, 1], [0, 1], [-1.0, -2.0])
    assert body["meta"]["score_kind"] == "preference"


def test_no_prompt_is_kept_for_an_explanation():
    """Memory is shared by all clients: the record of a call contains no prompt, which may be as long as the
    documents."""
    served = Served(listwise())
    kept = []
    submit = served.desk.reranker.submit

    def watched(request, **more):
        future = submit(request, **more)
        kept.append(future)
        return future

    served.desk.reranker.submit = watched
    explained(served, SIX)
    assert [call.prompt for call in kept[0].result().trace] == ["", ""]


def test_what_is_explained_is_in_no_log():
    """Neither an answer nor a defect."""
    served = Served(listwise(answer=lambda prompt: Answer(text="secret [2] > [1]")))
    explained(served, ["secret a", "secret b"])
    assert "secret" not in served.stream.getvalue()

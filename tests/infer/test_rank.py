"""Python as people expect it: documents ranked as by a cross-encoder, one request or many, and results as rows."""

from __future__ import annotations

import asyncio
import csv
import io
import logging
import math

import pytest
from framework_fakes import BEST, BY_RANK, REFUSED, TEXTS, listwise, pointwise, unreadable, worth
from ranking_fakes import PlainPairWriter, answer_by
from ranking_fakes import make_request as request_of

from rankllm_core.card import PointwiseCard
from rankllm_core.errors import RankLLMError
from rankllm_core.prompts.template import load_template
from rankllm_core.types import Candidate, Query, Result, Usage
from rankllm_infer.api import Reranker, make_request
from rankllm_infer.engines.base import Answer
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.ranking.pointwise import PointwiseMethod
from rankllm_infer.ranking.settings import RankingSettings


def sigmoid(logit):
    return 1 / (1 + math.exp(-logit))


def test_documents_are_ranked_in_the_shape_of_a_cross_encoder():
    """corpus_id and score, best first; ties keep their order. The same asynchronously."""
    reranker = pointwise()
    rows = reranker.rank("q", TEXTS)
    assert [row["corpus_id"] for row in rows] == BEST
    assert [row["score"] for row in rows] == pytest.approx([sigmoid(9), sigmoid(5), sigmoid(2), sigmoid(2)])
    assert {tuple(row) for row in rows} == {("corpus_id", "score")}
    assert {(type(row["corpus_id"]), type(row["score"])) for row in rows} == {(int, float)}
    assert asyncio.run(reranker.arank("q", TEXTS)) == rows
    assert reranker.rank("q", tuple(TEXTS), top_k=2) == rows[:2]
    assert reranker.rank("q", iter(TEXTS), top_k=9) == rows


def test_a_model_that_says_no_scores_is_read_by_rank():
    """A generated permutation."""
    assert [(row["corpus_id"], row["score"]) for row in listwise().rank("q", TEXTS)] == list(
        zip(BEST, BY_RANK, strict=True)
    )


def test_texts_mappings_and_candidates_keep_their_fields():
    """The text is under `text` wherever it is stored; ids may be repeated, and names that are taken are not lost."""
    documents = [
        "worth 1",
        {"id": 7, "contents": "worth 3", "url": "u", "score": 0.5},
        {"id": 7, "title": "", "text": "worth 2", "tags": ["a"]},
        Candidate(docid="d4", score=1.0, doc={"text": "worth 0", "year": 1999}),
    ]
    rows = pointwise().rank("q", documents, return_documents=True)
    for row in rows:
        del row["score"]
    assert rows == [
        {"corpus_id": 1, "text": "worth 3", "id": 7, "contents": "worth 3", "url": "u", "doc.score": 0.5},
        {"corpus_id": 2, "text": "worth 2", "id": 7, "title": "", "tags": ["a"]},
        {"corpus_id": 0, "text": "worth 1"},
        {"corpus_id": 3, "text": "worth 0", "year": 1999, "docid": "d4"},
    ]
    assert documents[1] == {"id": 7, "contents": "worth 3", "url": "u", "score": 0.5}


def test_titles_reach_the_model_and_metadata_do_not():
    """As from a corpus file."""
    shown = []

    class Writer(PlainPairWriter):
        def write(self, query, *, title, text, instruction=None):
            shown.append((query, title, text, instruction))
            return super().write(query, title=title, text=text)

    engine = ScriptedEngine(lambda prompt: Answer(scores=(1.0,), usage=Usage(calls=1)))
    method = PointwiseMethod(PointwiseCard(template=load_template("qwen3_reranker")), RankingSettings(), Writer())
    Reranker(method, engine).rank("q", [{"title": "T", "text": "a", "url": "u"}], instruction="find a")
    assert shown[0] == ("q", "T", "a", "find a")
    assert not any("u" in part for parts in shown for part in parts[1:3])


def test_candidates_bring_the_scores_of_their_first_stage():
    """With weight 1 these alone decide; where one document has none, the model does: the order says nothing."""
    reranker = pointwise(fuse_weight=1.0)
    candidates = [
        Candidate(docid="x", score=score, doc={"text": text})
        for text, score in zip(TEXTS, (1.0, 2.0, 4.0, 3.0), strict=True)
    ]
    assert [row["corpus_id"] for row in reranker.rank("q", candidates)] == [2, 3, 1, 0]
    assert [row["corpus_id"] for row in reranker.rank("q", [*candidates, "worth 99"])] == [4, *BEST]


@pytest.mark.parametrize("make", [pointwise, lambda **card: listwise(card=card)])
def test_the_order_of_plain_texts_is_not_fused_in(make):
    """They have no first stage: a card's weight is that of scores."""
    assert make(fuse_weight=1.0).rank("q", TEXTS) == make().rank("q", TEXTS)


def test_no_documents_are_no_rows():
    """An empty result of a retriever is no error."""
    for reranker in (pointwise(), listwise()):
        assert reranker.rank("q", []) == asyncio.run(reranker.arank("q", [])) == []


@pytest.mark.parametrize(
    ("query", "documents", "options", "message"),
    [
        ("q", "a text", {}, "documents: expected a list of texts or mappings, found str; put it into a list"),
        ("q", {"a", "b"}, {}, "documents: expected a list of texts or mappings, found set; a set has no order"),
        ("q", ["a", None], {}, "passage 2: expected a text or a mapping, found NoneType"),
        ("q", ["a", {"title": "T"}], {}, "passage 2: passage without text: expected one of text, segment"),
        ("", ["a"], {}, "query: expected a text, found an empty string"),
        ("q", ["a"], {"instruction": "find"}, "instruction: has no effect, as the model's prompt has no field for it"),
        ("q", ["a"], {"top_k": 0}, "top_k: expected an integer of at least 1, or None for all, found 0"),
        ("q", ["a"], {"top_k": True}, "top_k: expected an integer of at least 1, or None for all, found True"),
    ],
)
def test_what_cannot_be_ranked_is_one_line(query, documents, options, message):
    """Before the model is asked."""
    reranker = pointwise()
    for ask in (reranker.rank, lambda *given, **more: asyncio.run(reranker.arank(*given, **more))):
        with pytest.raises(RankLLMError) as caught:
            ask(query, documents, **options)
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)
    assert not reranker.engine.asked


def test_a_query_that_got_no_answer_is_an_error_and_no_ranking():
    """The order of the documents would pass for one."""
    with pytest.raises(RankLLMError, match=r"^out of order"):
        listwise(lambda prompt: REFUSED).rank("q", TEXTS)


def test_a_closed_reranker_ranks_nothing():
    """And shows that it is closed."""
    with pointwise() as reranker:
        assert repr(reranker) == "<Reranker: pointwise>"
    assert repr(reranker) == "<Reranker: pointwise, closed>"
    for ask in (reranker.rank, lambda *given: asyncio.run(reranker.arank(*given))):
        with pytest.raises(RankLLMError, match="the reranker is closed; load it again"):
            ask("q", TEXTS)


def test_answers_that_cannot_be_read_are_logged(caplog):
    """The rows do not say so."""
    with caplog.at_level(logging.WARNING, logger="rankllm_infer"):
        rows = listwise(unreadable).rank("q", TEXTS)
    assert [row["corpus_id"] for row in rows] == [0, 1, 2, 3]
    assert "some of the model's answers could not be read" in caplog.text


def test_one_request_has_one_result_and_several_have_a_list():
    """Synchronously and not."""
    reranker = listwise(answer_by(worth))
    requests = [make_request("q", TEXTS, qid=qid) for qid in ("a", "b")]
    several = reranker.rerank(requests)
    assert [result.query.qid for result in several] == ["a", "b"]
    assert reranker.rerank(requests[0]) == several[0]
    assert asyncio.run(reranker.arerank(requests[1])) == several[1]
    assert asyncio.run(reranker.arerank(requests)) == several
    assert reranker.rerank(iter(requests)) == several


RESULT = Result(
    query=Query(qid="7", text="what"),
    candidates=(
        Candidate(docid="b", score=2.0, doc={"text": "x", "url": "u"}, model_score=1.5, probability=0.75),
        Candidate(docid="a", score=1.0, doc={"text": "y", "score": 12.5, "tags": ["t"]}),
    ),
    status="repaired",
)
ROWS = [
    {"qid": "7", "query": "what", "docid": "b", "rank": 1, "score": 2.0, "model_score": 1.5, "probability": 0.75}
    | {"status": "repaired", "text": "x", "url": "u"},
    {"qid": "7", "query": "what", "docid": "a", "rank": 2, "score": 1.0, "model_score": None, "probability": None}
    | {"status": "repaired", "text": "y", "doc.score": 12.5, "tags": ["t"]},
]


def test_a_result_is_rows_of_plain_values():
    """Metadata are columns; a field whose name is taken is not lost."""
    assert RESULT.to_dicts() == ROWS
    assert Result(query=RESULT.query, candidates=()).to_dicts() == []


def test_rows_make_a_data_frame():
    """Of one result, of several, and of what `rank` returns."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([row for result in (RESULT, RESULT) for row in result.to_dicts()])
    assert list(frame.columns) == [*ROWS[0], "doc.score", "tags"]
    assert list(frame["docid"]) == ["b", "a", "b", "a"]
    assert frame["model_score"].isna().tolist() == [False, True, False, True]
    frame = pandas.DataFrame(pointwise().rank("q", TEXTS, return_documents=True))
    assert list(frame.columns) == ["corpus_id", "score", "text"]
    assert list(frame["text"]) == [TEXTS[position] for position in BEST]
    # A column of a frame is a list of documents as well.
    assert pointwise().rank("q", frame["text"])[0]["corpus_id"] == 0


def test_rows_are_written_without_pandas():
    """By the standard library."""
    stream = io.StringIO()
    rows = RESULT.to_dicts()
    writer = csv.DictWriter(stream, fieldnames=rows[0], extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    assert stream.getvalue().splitlines()[1] == "7,what,b,1,2.0,1.5,0.75,repaired,x,u"


def test_a_failed_query_says_so_in_its_rows():
    """Its candidates are in the order they came in."""
    (failed,) = listwise(lambda prompt: REFUSED).rerank([request_of("q", 2)])
    assert [(row["rank"], row["docid"], row["status"]) for row in failed.to_dicts()] == [
        (1, "d0", "failed"),
        (2, "d1", "failed"),
    ]

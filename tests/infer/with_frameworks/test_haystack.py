"""The ranker in Haystack itself: pipelines, serialization and asynchronous runs; copies, duplicates, loading once."""

from __future__ import annotations

import asyncio
import copy
import logging
import os

import pytest
from framework_fakes import (
    BEST,
    BY_RANK,
    REFUSED,
    TEXTS,
    Crowd,
    counted_model,
    examples,
    listwise,
    pointwise,
    unreadable,
)

from rankllm_core.errors import ConfigError, RankLLMError

pytest.importorskip("haystack", reason="needs Haystack: scripts/test-integrations haystack runs these")

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
from haystack import Document, Pipeline
from haystack.components.joiners import DocumentJoiner
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from rankllm_infer.integrations.haystack import RankLLMRanker


def documents(texts=TEXTS):
    """With ids, meta and decreasing first-stage scores."""
    return [Document(id=f"d{n}", content=text, meta={"source": n}, score=9.0 - n) for n, text in enumerate(texts)]


def ids(done):
    return [document.id for document in done["documents"]]


def test_documents_come_best_first_as_copies():
    """With ids, meta and non-increasing scores; equal texts keep their order; the originals are unchanged."""
    given = documents()
    before = copy.deepcopy(given)
    done = RankLLMRanker(reranker=listwise()).run(query="q", documents=given)
    assert ids(done) == [f"d{n}" for n in BEST]
    assert [document.score for document in done["documents"]] == BY_RANK
    assert [document.meta for document in done["documents"]] == [{"source": n} for n in BEST]
    assert (done["status"], done["defects"], done["score_kind"]) == ("ok", [], "rank")
    done["documents"][0].meta["source"] = "changed"
    assert given == before


@pytest.mark.parametrize(("of_component", "of_run", "n"), [(None, None, 4), (1, None, 1), (1, 3, 3), (9, None, 4)])
def test_the_best_are_returned(of_component, of_run, n):
    """As many as exist or are requested; the run's own number takes precedence."""
    done = RankLLMRanker(reranker=listwise(), top_k=of_component).run(query="q", documents=documents(), top_k=of_run)
    assert ids(done) == [f"d{n}" for n in BEST[:n]]


def test_documents_without_text_come_last_without_a_score():
    """They are not shown to the model; a joiner that sorts by score keeps them last."""
    given = [Document(id="none", score=99.0, meta={"title": "t"}), *documents(["worth 1", " ", "worth 2"])]
    done = RankLLMRanker(reranker=listwise(), meta_fields_to_embed=["title"]).run(query="q", documents=given)
    found = [(document.id, document.score) for document in done["documents"]]
    assert found == [("d2", 1.0), ("d0", 0.5), ("none", None), ("d1", None)]
    joined = DocumentJoiner(sort_by_score=True).run(documents=[done["documents"]])
    assert ids(joined)[:2] == ["d2", "d0"]


def test_nothing_is_ranked_without_documents():
    """An empty list is answered without a model."""
    ranker = RankLLMRanker("no/such/model")
    assert ranker.run(query="q", documents=[]) == {
        "documents": [],
        "status": "ok",
        "defects": [],
        "score_kind": "rank",
    }


def test_one_id_is_ranked_once():
    """The copy with the higher score, as after hybrid retrieval; equal texts with two ids are both kept."""
    twice = [
        Document(id="a", content="worth 1", score=0.1),
        Document(id="b", content="worth 1", score=0.2),
        Document(id="a", content="worth 3", score=0.3),
        Document(id="a", content="worth 5"),
    ]
    done = RankLLMRanker(reranker=listwise()).run(query="q", documents=twice)
    assert [(document.id, document.content) for document in done["documents"]] == [("a", "worth 3"), ("b", "worth 1")]


def test_the_model_sees_the_meta_that_is_asked_for():
    """Before the content."""
    reranker = listwise()
    given = [Document(content="worth 1", meta={"title": "T", "year": 7, "empty": ""}), Document(content="worth 2")]
    ranker = RankLLMRanker(
        reranker=reranker, meta_fields_to_embed=["title", "empty", "missing", "year"], meta_data_separator=" | "
    )
    ranker.run(query="q", documents=given)
    assert "[1] T | 7 | worth 1" in reranker.engine.asked[0].text
    assert "[2] worth 2" in reranker.engine.asked[0].text


def pipeline(ranker):
    """BM25, then the ranker."""
    store = InMemoryDocumentStore()
    store.write_documents([Document(id=f"d{n}", content=f"text {text}") for n, text in enumerate(TEXTS)])
    made = Pipeline()
    made.add_component("bm25", InMemoryBM25Retriever(document_store=store))
    made.add_component("ranker", ranker)
    made.connect("bm25.documents", "ranker.documents")
    return made


ASKED = {"bm25": {"query": "text"}, "ranker": {"query": "text", "top_k": 2}}


def test_a_pipeline_reranks():
    """Haystack's own composition, synchronous and asynchronous; the status is an output."""
    made = pipeline(RankLLMRanker(reranker=listwise()))
    for done in (made.run(ASKED), asyncio.run(made.run_async(ASKED))):
        assert ids(done["ranker"]) == ["d1", "d3"]
        assert done["ranker"]["status"] == "ok"


def test_a_pipeline_is_stored_and_its_model_loaded_once():
    """By its first run, not when it is created or restored; a server's key is not stored."""
    with counted_model() as (model, loads):
        options = model["options"] | {"api_key": "secret", "window_size": 4, "stride": 2}
        ranker = RankLLMRanker("oracle", top_k=3, options=options, meta_fields_to_embed=["title"])
        stored = pipeline(ranker).dumps()
        assert "secret" not in stored
        restored = Pipeline.loads(stored, allowed_modules=["rankllm_infer.integrations.haystack"])
        component = restored.get_component("ranker")
        assert component.to_dict() == ranker.to_dict()
        assert (component.to_dict()["init_parameters"]["options"]["window_size"], component.top_k) == (4, 3)
        assert loads() == 0
        made = pipeline(RankLLMRanker.from_dict(ranker.to_dict()))
        for _ in range(2):
            assert ids(made.run(ASKED)["ranker"]) == ["d1", "d3"]
        asyncio.run(made.run_async(ASKED))
        assert loads() == 1
        made.get_component("ranker").close()
        asyncio.run(made.get_component("ranker").close_async())


def test_a_reranker_that_was_handed_in_cannot_be_stored():
    """In one line, when the pipeline is stored; several components may share it."""
    reranker = listwise()
    made = Pipeline()
    made.add_component("one", RankLLMRanker(reranker=reranker))
    made.add_component("other", RankLLMRanker(reranker=reranker))
    with pytest.raises(RankLLMError, match="a reranker that was passed in cannot be serialized; use model and options"):
        made.dumps()


def test_concurrent_runs_share_batches():
    """Six calls at once: prompts of several calls are answered together."""
    crowd = Crowd(6)
    ranker = RankLLMRanker(reranker=crowd)

    async def main():
        return await asyncio.gather(*(ranker.run_async(query=f"q{n}", documents=documents()) for n in range(6)))

    assert [ids(done) for done in asyncio.run(main())] == [[f"d{n}" for n in BEST]] * 6
    assert sum(crowd.engine.batches) == 6
    assert len(crowd.engine.batches) < 6


def test_a_fallback_is_an_output_and_in_the_log(caplog):
    """The order is kept, and the fallback is reported."""
    with caplog.at_level(logging.WARNING, logger="rankllm_infer.integrations"):
        done = RankLLMRanker(reranker=listwise(unreadable)).run(query="q", documents=documents())
    assert ids(done) == ["d0", "d1", "d2", "d3"]
    assert done["status"] == "fallback"
    assert done["defects"]
    assert "some of the model's answers could not be read" in caplog.text


def test_a_query_that_fails_is_an_error():
    """Never the old order."""
    ranker = RankLLMRanker(reranker=listwise(lambda prompt: REFUSED))
    with pytest.raises(RankLLMError, match="out of order"):
        ranker.run(query="q", documents=documents())
    with pytest.raises(RankLLMError, match="out of order"):
        asyncio.run(ranker.run_async(query="q", documents=documents()))
    with pytest.raises(RankLLMError, match="query: expected a text, found an empty string"):
        ranker.run(query="", documents=documents())


def test_scores_of_the_retriever_are_fused_in():
    """If the card says so: with weight 1 they decide alone."""
    done = RankLLMRanker(reranker=pointwise(fuse_weight=1.0)).run(query="q", documents=documents()[::-1])
    assert ids(done) == ["d0", "d1", "d2", "d3"]


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({}, ConfigError, "expected either model"),
        ({"model": "m", "options": {"windowsize": 3}}, ConfigError, "windowsize: unknown key; did you mean 'window_s"),
        ({"model": "m", "top_k": 0}, ConfigError, "top_k: expected an integer of at least 1"),
    ],
)
def test_what_cannot_be_used_is_one_line(fields, kind, message):
    """When the component is created; a missing model, when it is warmed up."""
    with pytest.raises(kind, match=message) as caught:
        RankLLMRanker(**fields)
    assert "\n" not in str(caught.value)
    with pytest.raises(RankLLMError, match="no/such/folder: no such model folder"):
        RankLLMRanker("no/such/folder").warm_up()


@pytest.mark.usefixtures("smollm2_path")
def test_the_examples_of_the_page_run(capsys):
    """With the bundled reranker."""
    scope = {}
    for program in examples("integrations/haystack.md"):
        exec(program, scope)
    assert capsys.readouterr().out.startswith("1.0 AML is acute myeloid leukemia.\n")

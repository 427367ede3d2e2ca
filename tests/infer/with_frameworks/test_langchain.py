"""The document compressor in LangChain itself: order, copies, metadata, asyncio, loading once."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor

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

from rankllm_core.errors import ConfigError, ContractError, RankLLMError

pytest.importorskip("langchain_core", reason="needs LangChain: scripts/test-integrations langchain runs these")

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ValidationError

from rankllm_infer.integrations.langchain import RankLLMRerank


def documents(texts=TEXTS):
    """With ids and metadata."""
    return [Document(id=f"d{n}", page_content=text, metadata={"source": n}) for n, text in enumerate(texts)]


class Fixed(BaseRetriever):
    """Finds the same documents for any query."""

    found: list[Document]

    def _get_relevant_documents(self, query, *, run_manager):
        return self.found


def test_documents_come_best_first_as_copies():
    """With ids, metadata, non-increasing scores and the status; equal texts keep their order; the originals are
    unchanged."""
    given = documents()
    before = copy.deepcopy(given)
    found = RankLLMRerank(reranker=listwise()).compress_documents(given, "q")
    assert [document.id for document in found] == [f"d{n}" for n in BEST]
    assert [document.metadata for document in found] == [
        {"source": n, "relevance_score": score, "rankllm_status": "ok", "rankllm_score_kind": "rank"}
        for n, score in zip(BEST, BY_RANK, strict=True)
    ]
    assert given == before


@pytest.mark.parametrize(("top_n", "n"), [(None, 4), (1, 1), (9, 4)])
def test_the_best_are_returned(top_n, n):
    """As many as exist or are requested."""
    found = RankLLMRerank(reranker=listwise(), top_n=top_n).compress_documents(documents(), "q")
    assert [document.id for document in found] == [f"d{n}" for n in BEST[:n]]


def test_no_documents_need_no_model():
    """An empty list is answered, synchronously and asynchronously."""
    reranker = listwise()
    assert RankLLMRerank(reranker=reranker).compress_documents([], "q") == []
    assert asyncio.run(RankLLMRerank(reranker=reranker).acompress_documents([], "q")) == []
    assert reranker.engine.asked == []


def test_blank_documents_come_last_without_a_score():
    """They are not shown to the model."""
    found = RankLLMRerank(reranker=listwise()).compress_documents(documents(["", "worth 1", " \n", "worth 2"]), "q")
    assert [(document.id, document.metadata["relevance_score"]) for document in found] == [
        ("d3", 1.0),
        ("d1", 0.5),
        ("d0", None),
        ("d2", None),
    ]


def test_a_compression_retriever_reranks():
    """LangChain's own composition, synchronous and asynchronous, with callbacks."""
    from langchain_classic.retrievers import ContextualCompressionRetriever

    compressor = RankLLMRerank(reranker=listwise(), top_n=2)
    assert isinstance(compressor, BaseDocumentCompressor)
    retriever = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=Fixed(found=documents()))
    config = {"callbacks": [BaseCallbackHandler()]}
    for found in (retriever.invoke("q", config=config), asyncio.run(retriever.ainvoke("q", config=config))):
        assert [document.id for document in found] == ["d1", "d3"]
    batch = retriever.batch(["q1", "q2", "q3"])
    assert [[document.id for document in found] for found in batch] == [["d1", "d3"]] * 3


def test_concurrent_tasks_share_batches():
    """Six calls at once: none waits for another to end, and prompts of several are answered together."""
    crowd = Crowd(6)
    compressor = RankLLMRerank(reranker=crowd)

    async def main():
        return await asyncio.gather(*(compressor.acompress_documents(documents(), f"q{n}") for n in range(6)))

    assert [[document.id for document in found] for found in asyncio.run(main())] == [[f"d{n}" for n in BEST]] * 6
    assert sum(crowd.engine.batches) == 6
    assert len(crowd.engine.batches) < 6


def test_concurrent_threads_share_batches():
    """As called by LangChain's `batch`."""
    crowd = Crowd(6)
    compressor = RankLLMRerank(reranker=crowd)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda n: compressor.compress_documents(documents(), f"q{n}"), range(6)))
    assert [[document.id for document in one] for one in found] == [[f"d{n}" for n in BEST]] * 6
    assert len(crowd.engine.batches) < 6


def test_a_model_is_loaded_once_when_the_compressor_is_made():
    """Neither by importing nor by a query, a copy or a copied list of fields."""
    with counted_model() as (model, loads):
        compressor = RankLLMRerank(**model)
        assert loads() == 1
        for each in (compressor, copy.deepcopy(compressor), compressor.model_copy(update={"top_n": 2})):
            found = each.compress_documents(documents(), "q")
            assert [document.id for document in found][:2] == ["d1", "d3"]
        assert loads() == 1


def test_several_compressors_share_a_reranker():
    """Each with its own number of documents."""
    reranker = listwise()
    found = [RankLLMRerank(reranker=reranker, top_n=top_n).compress_documents(documents(), "q") for top_n in (1, 3)]
    assert [len(one) for one in found] == [1, 3]
    assert len(reranker.engine.asked) == 2


def test_fields_are_plain_data():
    """Dumped fields recreate the compressor; a key is not dumped."""
    with counted_model() as (model, _):
        options = model["options"] | {"api_key": "secret", "window_size": 4, "stride": 2}
        compressor = RankLLMRerank(model="oracle", top_n=3, options=options)
        dumped = compressor.model_dump_json()
        assert "secret" not in dumped + repr(compressor) + str(compressor)
        again = RankLLMRerank.model_validate_json(dumped)
        assert (again.model, again.top_n, again.options.window_size, again.options.stride) == ("oracle", 3, 4, 2)
        assert again.model_dump() == compressor.model_dump()
        assert pickle.loads(pickle.dumps(compressor)).model_dump() == compressor.model_dump()


def test_a_fallback_is_in_the_metadata_and_in_the_log(caplog):
    """The order is kept, and the fallback is reported."""
    with caplog.at_level(logging.WARNING, logger="rankllm_infer.integrations"):
        found = RankLLMRerank(reranker=listwise(unreadable)).compress_documents(documents(), "q")
    assert [document.id for document in found] == ["d0", "d1", "d2", "d3"]
    assert {document.metadata["rankllm_status"] for document in found} == {"fallback"}
    assert all(document.metadata["rankllm_defects"] for document in found)
    assert "some of the model's answers could not be read" in caplog.text


def test_a_query_that_fails_is_an_error():
    """Never the old order."""
    compressor = RankLLMRerank(reranker=listwise(lambda prompt: REFUSED))
    with pytest.raises(RankLLMError, match="out of order"):
        compressor.compress_documents(documents(), "q")
    with pytest.raises(RankLLMError, match="out of order"):
        asyncio.run(compressor.acompress_documents(documents(), "q"))
    with pytest.raises(RankLLMError, match="query: expected a text, found an empty string"):
        compressor.compress_documents(documents(), " ")


def test_scores_of_a_pointwise_model_are_sigmoids():
    """sigmoid(0) is 1/2; scores are comparable across queries."""
    found = RankLLMRerank(reranker=pointwise()).compress_documents(documents(["worth 0", "worth 50"]), "q")
    assert [document.metadata["relevance_score"] for document in found] == pytest.approx([1.0, 0.5])


def test_an_instruction_needs_a_model_that_takes_one():
    """It is not silently dropped."""
    with pytest.raises(RankLLMError, match="its instruction has no effect: listwise prompts take no instruction"):
        RankLLMRerank(reranker=listwise(), instruction="i").compress_documents(documents(), "q")


@pytest.mark.parametrize("name", ["model", "options", "reranker"])
def test_what_decides_the_loaded_model_cannot_be_set(name):
    """A new value would have no effect; fields that are read at each call can be changed."""
    made = RankLLMRerank(reranker=listwise())
    with pytest.raises(ValidationError, match="frozen"):
        setattr(made, name, None)
    made.top_n = 1
    assert RankLLMRerank.model_json_schema()["properties"].keys() >= {"model", "top_n", "options", "instruction"}


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({}, ConfigError, "expected either model"),
        ({"model": "m", "reranker": listwise()}, ConfigError, "expected either model"),
        ({"reranker": listwise(), "options": {}}, ConfigError, "options: they have no effect on a reranker that is"),
        ({"model": "m", "options": {"windowsize": 3}}, ConfigError, "windowsize: unknown key; did you mean 'window_s"),
        ({"model": "m", "options": {"window_size": 0}}, ConfigError, "window_size: expected at least 1, found 0"),
        ({"model": "m", "options": {"with_trace": True}}, ConfigError, "--trace has no effect in an integration"),
        ({"reranker": listwise(), "top_n": 0}, ConfigError, "top_n: expected an integer of at least 1"),
        ({"model": "no/such/folder"}, RankLLMError, "no/such/folder: no such model folder"),
    ],
)
def test_what_cannot_be_used_is_one_line(fields, kind, message):
    """When the compressor is created."""
    with pytest.raises(kind, match=message) as caught:
        RankLLMRerank(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("smollm2_path")
def test_the_examples_of_the_page_run(capsys):
    """With the bundled reranker."""
    found = documents(["Bananas are yellow.", "AML is acute myeloid leukemia."])
    scope = {"retriever": Fixed(found=found)}
    for program in examples("integrations/langchain.md"):
        exec(program, scope)
    assert capsys.readouterr().out.startswith("1.0 AML is acute myeloid leukemia.\n")


def test_a_model_that_breaks_its_promise_is_refused(tmp_path):
    """A folder without a model in it."""
    (tmp_path / "rankllm.yaml").write_text("format: 1\nkind: listwise\n", encoding="utf-8")
    with pytest.raises(RankLLMError) as caught:
        RankLLMRerank(model=tmp_path)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, ContractError) or str(tmp_path) in str(caught.value)

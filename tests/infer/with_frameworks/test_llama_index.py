"""The node postprocessor in LlamaIndex itself: order, copies, metadata, events, asyncio, serialization, loading
once."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle

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

pytest.importorskip("llama_index.core", reason="needs LlamaIndex: scripts/test-integrations llama-index runs these")

from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from pydantic import ValidationError

from rankllm_infer.integrations.llama_index import RankLLMRerank


def nodes(texts=TEXTS):
    """With ids, metadata and decreasing first-stage scores."""
    return [
        NodeWithScore(node=TextNode(id_=f"d{n}", text=text, metadata={"source": n}), score=1.0 - n / 10)
        for n, text in enumerate(texts)
    ]


class Fixed(BaseRetriever):
    """Finds the same nodes for any query."""

    def _retrieve(self, query_bundle):
        return nodes()


def ids(found):
    return [node.node_id for node in found]


def test_nodes_come_best_first_as_copies():
    """With ids, metadata and non-increasing scores; equal texts keep their order; the originals are unchanged."""
    given = nodes()
    before = copy.deepcopy(given)
    found = RankLLMRerank(reranker=listwise()).postprocess_nodes(given, query_str="q")
    assert ids(found) == [f"d{n}" for n in BEST]
    assert [node.score for node in found] == BY_RANK
    notes = {"rankllm_status": "ok", "rankllm_score_kind": "rank"}
    assert [node.metadata for node in found] == [{"source": n} | notes for n in BEST]
    assert given == before


def test_the_status_is_hidden_from_prompts_and_embeddings():
    """The inputs of answer synthesis are unchanged."""
    (found,) = RankLLMRerank(reranker=listwise()).postprocess_nodes(nodes(["worth 1"]), query_str="q")
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert found.get_content(mode) == "source: 0\n\nworth 1"


@pytest.mark.parametrize(("top_n", "n"), [(None, 4), (1, 1), (9, 4)])
def test_the_best_are_returned(top_n, n):
    """As many as exist or are requested."""
    found = RankLLMRerank(reranker=listwise(), top_n=top_n).postprocess_nodes(nodes(), query_bundle=QueryBundle("q"))
    assert ids(found) == [f"d{n}" for n in BEST[:n]]


def test_nodes_without_text_come_last_without_a_score():
    """Images and blank texts are not shown to the model, whatever their metadata."""
    image = NodeWithScore(node=ImageNode(id_="image", image_url="http://x/y.png", metadata={"a": "b"}), score=0.9)
    found = RankLLMRerank(reranker=listwise()).postprocess_nodes([image, *nodes(["worth 1", " "])], query_str="q")
    assert [(node.node_id, node.score) for node in found] == [("d0", 1.0 / 1), ("image", None), ("d1", None)]
    assert isinstance(found[1].node, ImageNode)
    assert RankLLMRerank(reranker=listwise()).postprocess_nodes([], query_str="q") == []


def test_the_model_sees_the_metadata_that_an_embedding_includes():
    """Like LlamaIndex's own rerankers; or none."""
    for mode, text in ((MetadataMode.EMBED, "[1] source: 0 worth 1"), (MetadataMode.NONE, "[1] worth 1")):
        reranker = listwise()
        RankLLMRerank(reranker=reranker, metadata_mode=mode).postprocess_nodes(
            nodes(["worth 1", "worth 2"]), query_str="q"
        )
        assert text in reranker.engine.asked[0].text.replace("\n\n", " ")


def test_a_query_engine_reranks_and_tells_its_observers():
    """LlamaIndex's own composition, synchronous and asynchronous, with its events and callbacks."""
    events = []

    class Heard(BaseEventHandler):
        @classmethod
        def class_name(cls):
            return "Heard"

        def handle(self, event, **more):
            events.append(event)

    get_dispatcher().add_event_handler(Heard())
    debug = LlamaDebugHandler(print_trace_on_end=False)
    reranker = RankLLMRerank(reranker=listwise(), top_n=2)
    assert isinstance(reranker, BaseNodePostprocessor)
    engine = RetrieverQueryEngine(
        retriever=Fixed(),
        node_postprocessors=[reranker],
        response_synthesizer=get_response_synthesizer(llm=MockLLM(max_tokens=5)),
        callback_manager=CallbackManager([debug]),  # which it hands to its postprocessors
    )
    assert ids(engine.query("q").source_nodes) == ["d1", "d3"]
    assert ids(asyncio.run(engine.aquery("q")).source_nodes) == ["d1", "d3"]
    reranking = [event for event in events if "ReRank" in event.class_name()]
    assert [event.class_name() for event in reranking] == ["ReRankStartEvent", "ReRankEndEvent"] * 2
    assert (reranking[0].top_n, ids(reranking[1].nodes)) == (2, ["d1", "d3"])
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 2


def test_concurrent_tasks_share_batches():
    """Six calls at once: prompts of several calls are answered together."""
    crowd = Crowd(6)
    reranker = RankLLMRerank(reranker=crowd)

    async def main():
        return await asyncio.gather(*(reranker.apostprocess_nodes(nodes(), query_str=f"q{n}") for n in range(6)))

    assert [ids(found) for found in asyncio.run(main())] == [[f"d{n}" for n in BEST]] * 6
    assert sum(crowd.engine.batches) == 6
    assert len(crowd.engine.batches) < 6


def test_a_model_is_loaded_once_when_the_postprocessor_is_made():
    """Neither by importing nor by a query or a copy."""
    with counted_model() as (model, loads):
        reranker = RankLLMRerank(**model)
        assert loads() == 1
        for each in (reranker, copy.deepcopy(reranker)):
            assert ids(each.postprocess_nodes(nodes(), query_str="q"))[:2] == ["d1", "d3"]
        assert loads() == 1


def test_a_postprocessor_is_stored_and_restored():
    """As a dictionary, as JSON and as a pickle; without a server's key."""
    with counted_model() as (model, loads):
        options = model["options"] | {"api_key": "secret", "window_size": 4, "stride": 2}
        reranker = RankLLMRerank(model="oracle", top_n=3, options=options)
        assert "secret" not in reranker.to_json() + repr(reranker)
        restored = (
            RankLLMRerank.from_dict(reranker.to_dict()),
            RankLLMRerank.from_json(reranker.to_json()),
            pickle.loads(pickle.dumps(reranker)),
        )
        assert loads() == 4
        for again in restored:
            assert (again.model, again.top_n, again.options.window_size) == ("oracle", 3, 4)
            assert ids(again.postprocess_nodes(nodes(), query_str="q"))[:2] == ["d1", "d3"]


def test_a_fallback_is_in_the_metadata_and_in_the_log(caplog):
    """The order is kept, and the fallback is reported."""
    with caplog.at_level(logging.WARNING, logger="rankllm_infer.integrations"):
        found = RankLLMRerank(reranker=listwise(unreadable)).postprocess_nodes(nodes(), query_str="q")
    assert ids(found) == ["d0", "d1", "d2", "d3"]
    assert {node.metadata["rankllm_status"] for node in found} == {"fallback"}
    assert all(node.metadata["rankllm_defects"] for node in found)
    assert "some of the model's answers could not be read" in caplog.text


def test_a_query_that_fails_is_an_error():
    """Never the old order."""
    reranker = RankLLMRerank(reranker=listwise(lambda prompt: REFUSED))
    with pytest.raises(RankLLMError, match="out of order"):
        reranker.postprocess_nodes(nodes(), query_str="q")
    with pytest.raises(RankLLMError, match="out of order"):
        asyncio.run(reranker.apostprocess_nodes(nodes(), query_str="q"))
    with pytest.raises(RankLLMError, match="query: expected query_str or query_bundle, found neither"):
        reranker.postprocess_nodes(nodes())


def test_scores_of_the_retriever_are_fused_in():
    """If the card says so: with weight 1 they decide alone."""
    found = RankLLMRerank(reranker=pointwise(fuse_weight=1.0)).postprocess_nodes(nodes()[::-1], query_str="q")
    assert ids(found) == ["d0", "d1", "d2", "d3"]


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
        ({"model": "m", "options": {"windowsize": 3}}, ConfigError, "windowsize: unknown key; did you mean 'window_s"),
        ({"reranker": listwise(), "top_n": 0}, ConfigError, "top_n: expected an integer of at least 1"),
        ({"model": "no/such/folder"}, RankLLMError, "no/such/folder: no such model folder"),
    ],
)
def test_what_cannot_be_used_is_one_line(fields, kind, message):
    """When the postprocessor is created."""
    with pytest.raises(kind, match=message) as caught:
        RankLLMRerank(**fields)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("smollm2_path")
def test_the_examples_of_the_page_run(capsys):
    """With the bundled reranker."""
    scope = {"retriever": Fixed(), "response_synthesizer": get_response_synthesizer(llm=MockLLM(max_tokens=5))}
    for program in examples("integrations/llama-index.md"):
        exec(program, scope)
    assert capsys.readouterr().out.startswith("1.0 AML is acute myeloid leukemia.\n")

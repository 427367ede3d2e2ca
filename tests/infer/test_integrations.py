"""Shared code of the integrations, without any framework: options as plain data, requests from texts, loading once."""

from __future__ import annotations

import asyncio
import copy
import importlib
import importlib.util
import pickle
import threading
from pathlib import Path

import pytest
from framework_fakes import BEST, BY_RANK, REFUSED, TEXTS, Crowd, counted_model, listwise, pointwise

from rankllm_core.card import PointwiseCard
from rankllm_core.errors import ConfigError, MissingPackageError, RankLLMError
from rankllm_core.prompts.template import load_template
from rankllm_core.types import Usage
from rankllm_infer.api import Reranker
from rankllm_infer.engines.base import Answer, Prompt
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.integrations.stored_options import as_options, to_plain
from rankllm_infer.integrations.texts import TextReranker, missing_package, text_request
from rankllm_infer.options import RerankOptions
from rankllm_infer.ranking.pointwise import PointwiseMethod
from rankllm_infer.ranking.settings import RankingSettings

FRAMEWORKS = [
    ("langchain", "langchain_core", "langchain"),
    ("llama_index", "llama_index.core", "llama-index"),
    ("haystack", "haystack", "haystack"),
    ("pyterrier", "pyterrier", "pyterrier"),
]
"""Our module, the framework's module, extra."""


@pytest.mark.parametrize(("module", "package", "extra"), FRAMEWORKS)
def test_a_missing_framework_is_one_line_with_its_extra(module, package, extra):
    """When the integration is imported."""
    if importlib.util.find_spec(package.partition(".")[0]) is not None:
        pytest.skip(f"{package} is installed here")
    with pytest.raises(MissingPackageError) as caught:
        importlib.import_module(f"rankllm_infer.integrations.{module}")
    assert str(caught.value) == (
        f"rankllm_infer.integrations.{module} needs {package}, which is not installed. "
        f"Install it with: uv add 'rankllm-infer[{extra}]'"
    )


def test_a_broken_framework_keeps_its_own_error():
    """Its missing dependency is not what we would install."""
    error = ModuleNotFoundError("No module named 'pydantic'", name="pydantic")
    assert missing_package(error, "langchain_core", extra="langchain") is error


def test_options_survive_being_stored():
    """Options that differ from defaults; tuples become lists and paths strings."""
    options = RerankOptions(window_size=4, stride=2, identifier_prior=(0.5, 0.25), template=Path("t.yaml"))
    stored = to_plain(options)
    assert stored == {"window_size": 4, "stride": 2, "identifier_prior": [0.5, 0.25], "template": "t.yaml"}
    assert to_plain(as_options(stored)) == stored
    assert (as_options(None), to_plain(None), to_plain(RerankOptions())) == (None, None, {})


def test_a_servers_key_comes_from_the_environment_and_is_not_stored(monkeypatch):
    """As on the command line; an explicit key takes precedence."""
    monkeypatch.setenv("OPENAI_API_KEY", "from the environment")
    server = {"engine": "openai", "base_url": "http://localhost/v1"}
    assert as_options(server).api_key == "from the environment"
    given = as_options(server | {"api_key": "given"})
    assert given.api_key == "given"
    assert to_plain(given) == server
    with pytest.raises(
        ConfigError, match=r"^base_url: contains a password, which is not stored; leave it out, and set OPEN"
    ):
        to_plain(as_options(server | {"base_url": "http://me:secret@localhost/v1"}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windowsize": 4}, "options: windowsize: unknown key; did you mean 'window_size'"),
        ({"window_size": "4"}, "window_size: expected an integer or None, found str '4'"),
        ("window_size=4", "options: expected RerankOptions or a mapping of its fields, found str"),
        (RerankOptions(with_trace=True), "--trace has no effect in an integration; leave it out"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(options, message):
    """The line names the option."""
    with pytest.raises(ConfigError) as caught:
        as_options(options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_texts_are_ranked_by_position():
    """Best first; texts that cannot be shown come last, in their original order."""
    ranked = TextReranker(None, reranker=listwise()).rank("q", [None, *TEXTS, " "])
    assert ranked.order == (*(position + 1 for position in BEST), 0, 5)
    assert ranked.scores == (*BY_RANK, None, None)
    assert (ranked.score_kind, ranked.status, ranked.defects) == ("rank", "ok", ())


@pytest.mark.parametrize("texts", [[], [None], ["", " \n"]])
def test_nothing_to_show_needs_no_model(texts):
    """Nor a query."""
    ranker = TextReranker("no/such/model")
    n = len(texts)
    for ranked in (ranker.rank("", texts), asyncio.run(ranker.arank("", texts))):
        assert (ranked.order, ranked.scores) == (tuple(range(n)), (None,) * n)


def test_an_instruction_reaches_the_prompt():
    """For a model that takes one; the default is the model's own."""

    class Writer:
        def write(self, query, *, title, text, instruction=None):
            return Prompt(text=f"{instruction}|{query}|{text}", read="head")

    card = PointwiseCard(template=load_template("qwen3_reranker"))
    engine = ScriptedEngine(lambda prompt: Answer(scores=(1.0,), usage=Usage(calls=1)))
    ranker = TextReranker(None, reranker=Reranker(PointwiseMethod(card, RankingSettings(), Writer()), engine))
    ranker.rank("q", ["text"], instruction="find patents")
    asyncio.run(ranker.arank("q", ["text"]))
    assert [prompt.text for prompt in engine.asked] == ["find patents|q|text", "None|q|text"]


def test_scores_of_the_first_stage_are_fused_where_all_are_known():
    """With weight 1 the first stage alone decides; if a score is missing, its order does."""
    ranker = TextReranker(None, reranker=pointwise(fuse_weight=1.0))
    assert ranker.rank("q", TEXTS, scores=[1.0, 2.0, 4.0, 3.0]).order == (2, 3, 1, 0)
    assert ranker.rank("q", TEXTS, scores=[1.0, 2.0, None, 3.0]).order == (0, 1, 2, 3)
    request = text_request("q", ["a", " ", "b"], scores=[0.1, 0.2, 0.3])
    assert [(candidate.docid, candidate.score) for candidate in request.candidates] == [("0", 0.1), ("2", 0.3)]


def test_a_model_is_loaded_once_whoever_comes_first():
    """From eight threads and a task, on first use."""
    with counted_model() as (model, loads):
        ranker = TextReranker(model["model"], model["options"])
        assert loads() == 0
        found = []
        threads = [threading.Thread(target=lambda: found.append(ranker.rank("q", TEXTS).order)) for _ in range(8)]
        for thread in threads:
            thread.start()
        found.append(asyncio.run(ranker.arank("q", TEXTS)).order)
        for thread in threads:
            thread.join()
        assert found == [tuple(BEST)] * 9
        assert loads() == 1
        assert copy.deepcopy(ranker) is ranker
        elsewhere = pickle.loads(pickle.dumps(ranker))
        assert loads() == 1
        assert elsewhere.rank("q", TEXTS).order == tuple(BEST)
        assert loads() == 2
    with pytest.raises(RankLLMError, match="a reranker that was passed in cannot be pickled; give model and options"):
        pickle.dumps(TextReranker(None, reranker=listwise()))


def test_a_closed_model_is_loaded_again_and_a_shared_one_stays_open():
    """Only the owner closes it."""
    with counted_model() as (model, loads):
        ranker = TextReranker(model["model"], model["options"])
        ranker.close()
        ranker.rank("q", TEXTS)
        ranker.close()
        ranker.rank("q", TEXTS)
        ranker.close()
        assert loads() == 2
    reranker = listwise()
    TextReranker(None, reranker=reranker).close()
    assert TextReranker(None, reranker=reranker).rank("q", TEXTS).order == tuple(BEST)


def test_a_cancelled_task_leaves_the_queue():
    """For example when a client disconnects: its prompt is never run."""
    crowd = Crowd(3)
    ranker = TextReranker(None, reranker=crowd)

    async def main():
        first = asyncio.create_task(ranker.arank("first", TEXTS))
        while not crowd.engine.asked:  # until the engine is at work
            await asyncio.sleep(0.01)
        cancelled = asyncio.create_task(ranker.arank("cancelled", TEXTS))
        await asyncio.sleep(0.05)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        last = await ranker.arank("last", TEXTS)  # the third call, which the engine waits for
        return [(await first).order, last.order]

    assert asyncio.run(main()) == [tuple(BEST)] * 2
    assert len(crowd.engine.asked) == 2
    assert not any("cancelled" in prompt.text for prompt in crowd.engine.asked)


def test_a_failed_query_says_why_without_a_name_that_nobody_gave():
    """The qid of a single request is internal."""
    ranker = TextReranker(None, reranker=listwise(lambda prompt: REFUSED))
    with pytest.raises(RankLLMError) as caught:
        ranker.rank("q", TEXTS)
    assert str(caught.value) == "out of order"

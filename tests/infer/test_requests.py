"""Nothing is accepted by accident in Python: what is no request, passage or option is named, with its place."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from ranking_fakes import answer_by, make_method, number
from ranking_fakes import make_request as request_of

from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_infer.api import Reranker, load_reranker, make_request, plan_reranking
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.options import RerankOptions


@pytest.fixture
def reranker():
    """A listwise one."""
    return Reranker(make_method(), ScriptedEngine(answer_by(number)))


@pytest.mark.parametrize("passages", ["a cat sleeps", b"a cat", {"text": "a cat"}, {}, None, 3])
def test_passages_are_a_list(passages):
    """A text would be twelve passages of a letter each."""
    with pytest.raises(RankLLMError, match="passages: expected a list of texts or mappings, found "):
        make_request("cat", passages)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (None, "expected a text or a mapping, found NoneType"),
        (b"text", "expected a text or a mapping, found bytes"),
        (3, "expected a text or a mapping, found int"),
        (["text"], "expected a text or a mapping, found list"),
        (("d", "text"), "expected a text or a mapping, found tuple"),
        ({}, "passage without text: expected one of text, .*; found nothing"),
        ({"title": "T", "docid": "d"}, "passage without text"),
        ({"text": ["a"]}, "text: expected text, found list"),
        ({"text": "x", "docid": None}, "docid: expected a non-empty string or an integer, found null"),
        ({"text": "x", "id": ""}, "id: expected a non-empty string or an integer, found the string "),
        ({"text": "x", "_id": True}, "_id: expected a non-empty string or an integer, found true"),
        ({"text": "x", "pid": 1.0}, "pid: expected a non-empty string or an integer, found the number 1.0"),
    ],
)
def test_a_passage_that_is_none_is_named(wrong, message):
    """By its place."""
    with pytest.raises(RankLLMError, match=rf"^passage 2: {message}"):
        make_request("cat", ["a cat", wrong])


@pytest.mark.parametrize(
    ("passage", "docid", "doc"),
    [
        ({"id": 3, "content": "a"}, "3", {"content": "a"}),
        ({"_id": "x", "text": "a", "title": "T"}, "x", {"text": "a", "title": "T"}),
        ({"docid": 7, "contents": "a"}, "7", {"contents": "a"}),
        ({"text": "a", "docid": "D", "pid": "P"}, "P", {"text": "a", "docid": "D"}),
        ({"text": "a", "url": "u"}, "1", {"text": "a", "url": "u"}),
    ],
)
def test_a_docid_has_the_names_that_it_has_in_a_corpus_file(passage, docid, doc):
    """The first of pid, docid, _id and id; the other keys stay in the doc."""
    (made,) = make_request("cat", [passage]).candidates
    assert (made.docid, made.doc) == (docid, doc)


@pytest.mark.parametrize(
    "passages", [[{"docid": "2", "text": "a"}, "b"], [{"id": 1, "text": "a"}, {"id": "1", "text": "b"}]]
)
def test_a_docid_is_given_once(passages):
    """Also where it is the place of a passage that has none."""
    with pytest.raises(RankLLMError, match=r"query '1': docid '[12]' occurs twice"):
        make_request("cat", passages)


def test_passages_come_from_any_iterable():
    """A generator, a tuple; and there may be none."""
    for given in (("a", "b"), (text for text in "ab"), ["a", {"text": "b"}]):
        assert [c.doc for c in make_request("cat", given).candidates] == [{"text": "a"}, {"text": "b"}]
    assert make_request("cat", []).candidates == ()


@pytest.mark.parametrize("query", [None, 3, b"cat", ["cat"], "", "  \n"])
def test_a_query_is_a_text(query):
    """That says something."""
    with pytest.raises(RankLLMError, match="query: expected a text, found "):
        make_request(query, ["a"])


@pytest.mark.parametrize(("qid", "message"), [(None, "found null"), ("", "found the string ''"), (True, "found true")])
def test_a_qid_is_an_id(qid, message):
    """An integer is one."""
    with pytest.raises(RankLLMError, match=rf"qid: expected a non-empty string or an integer, {message}"):
        make_request("cat", ["a"], qid=qid)
    assert make_request("cat", ["a"], qid=7).query.qid == "7"


@pytest.mark.parametrize("wrong", [None, "q", {"query": "q"}, 0, False, ()])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_no_request_is_named_by_its_place(reranker, wrong, place):
    """None ended the run there: what came after it was lost without a word."""
    requests = [request_of("q1", 2), request_of("q2", 2)]
    requests.insert(place, wrong)
    for given in (requests, iter(requests)):
        with pytest.raises(
            RankLLMError, match=rf"request {place + 1}: expected a Request, found {type(wrong).__name__}"
        ):
            reranker.rerank(given)
        with pytest.raises(RankLLMError, match=rf"request {place + 1}: expected a Request"):
            list(reranker.stream(given if given is requests else iter(requests)))
    assert len(reranker.rerank([request_of("q1", 2)])) == 1


@pytest.mark.parametrize("requests", [None, "q", 3, {"q": 1}])
def test_requests_are_an_iterable_of_them(reranker, requests):
    """A text is one of letters, a mapping one of keys."""
    for ask in (reranker.rerank, lambda given: list(reranker.stream(given))):
        with pytest.raises(RankLLMError, match="requests: expected an iterable of Request, found "):
            ask(requests)


def test_a_stream_of_one_request_is_told_to_be_a_list(reranker):
    """`rerank` takes one alone and returns its result; a stream would have nothing to stream."""
    with pytest.raises(RankLLMError, match=r"requests: expected an iterable of Request, found Request; put it into a"):
        list(reranker.stream(request_of("q", 2)))


def test_a_qid_may_be_given_twice_where_results_are_known_by_their_order(reranker):
    """As of requests made without one; a log would take the answers to the one for those to the other."""
    requests = [request_of("q", 2), request_of("q", 3)]
    assert [len(result.candidates) for result in reranker.rerank(requests)] == [2, 3]

    class Log:
        """Knows nothing and keeps nothing."""

        def is_finished(self, qid):
            """Not."""
            return False

        def recall(self, qid, number):
            """Nothing."""

        def keep(self, answers):
            """Nothing."""

    with pytest.raises(RankLLMError, match="query 'q' occurs twice"):
        list(reranker.stream(requests, log=Log()))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", "8"),
        ("batch_size", True),
        ("batch_size", 8.0),
        ("window_size", "20"),
        ("stride", 2.5),
        ("num_gpus", None),
        ("top_k_candidates", [10]),
        ("q_max_len", True),
        ("use_alpha", "yes"),
        ("use_alpha", 1),
        ("shuffle_candidates", None),
        ("with_trace", 1),
        ("engine", None),
        ("template", 3),
        ("template", b"rank_zephyr"),
        ("device", 0),
        ("seed", 1.5),
        ("timeout_s", "60"),
        ("timeout_s", math.nan),
        ("timeout_s", math.inf),
        ("fuse_weight", "0.5"),
        ("fuse_weight", math.nan),
        ("fuse_weight", True),
        ("vllm_args", "a=1"),
        ("vllm_args", ["a=1"]),
        ("vllm_args", (1,)),
        ("identifier_prior", [0.1]),
        ("identifier_prior", (0.1, math.nan)),
        ("identifier_prior", ("0.1",)),
        ("system_message", 7),
        ("api_key", 7),
    ],
)
def test_an_option_of_another_type_is_refused_by_name(name, value):
    """Not by a traceback, and not by doing something else."""
    with pytest.raises(ConfigError, match=rf"^{name}: expected .*, found {type(value).__name__} "):
        RerankOptions(**{name: value})


@pytest.mark.parametrize(
    "name",
    [
        *("concurrency", "num_gpus", "batch_size", "decode_top_k", "context_size", "max_passage_words"),
        *("window_size", "stride", "rank_top_k", "permutations", "num_passes"),
        *("q_max_len", "p_max_len", "top_k_candidates"),
    ],
)
@pytest.mark.parametrize("value", [0, -1])
def test_a_number_of_nothing_is_refused_by_name(name, value):
    """Before a model is looked for."""
    with pytest.raises(ConfigError, match=rf"^{name}: expected at least 1, found {value}"):
        RerankOptions(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("batch_tokens", -1), ("num_few_shot_examples", -1), ("timeout_s", 0), ("timeout_s", -3.0)]
)
def test_a_number_below_its_least_is_refused_by_name(name, value):
    """Likewise."""
    with pytest.raises(ConfigError, match=rf"^{name}: expected "):
        RerankOptions(**{name: value})


def test_a_misspelt_option_is_pythons_error():
    """It names the word."""
    with pytest.raises(TypeError, match="batchsize"):
        RerankOptions(batchsize=8)


def test_what_fits_is_taken():
    """An integer for a float, a Path for a file."""
    options = RerankOptions(fuse_weight=1, timeout_s=300, template=Path("t.yaml"), identifier_prior=(0, 0.5))
    assert (options.fuse_weight, options.template) == (1, Path("t.yaml"))


@pytest.mark.parametrize("model", [None, "", " ", 3, b"model"])
def test_a_model_is_named(model):
    """`None` is no folder of that name."""
    for load in (load_reranker, plan_reranking):
        with pytest.raises(ConfigError, match="model: expected a folder or a name, found "):
            load(model)


@pytest.mark.parametrize("options", [{"engine": "vllm"}, "vllm", 3])
def test_options_are_rerank_options(options):
    """A mapping is told so."""
    with pytest.raises(ConfigError, match="options: expected RerankOptions, found "):
        load_reranker("model", options)


def test_a_set_of_passages_is_no_order():
    """Its order differs from process to process, and with it every rank and docid."""
    with pytest.raises(RankLLMError, match=r"passages: expected a list .*, found set; a set has no order, use a list"):
        make_request("cat", {"a cat", "a dog"})

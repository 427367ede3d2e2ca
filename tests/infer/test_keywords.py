"""Options as keywords of `load_reranker`: typed, complete, and spelled right or refused by name."""

from __future__ import annotations

import inspect
import logging
import typing

import pytest
from chat_server import serving
from framework_fakes import TEXTS
from ranking_server import respond

from rankllm_core.errors import ConfigError
from rankllm_infer import RerankOptions, load_reranker
from rankllm_infer.api import with_environment_key
from rankllm_infer.option_table import rows_of
from rankllm_infer.option_values import RerankKeywords, from_keywords

ROWS = rows_of(RerankOptions)
TYPES = typing.get_type_hints(RerankKeywords)


def literals(kind):
    """The values of a Literal, perhaps beside None; empty for any other type."""
    found = [part for part in (kind, *typing.get_args(kind)) if typing.get_origin(part) is typing.Literal]
    return typing.get_args(found[0]) if found else ()


def test_every_option_is_a_keyword():
    """In the order of the option table, and nothing else is one."""
    assert list(TYPES) == list(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_a_keyword_has_the_type_of_its_option(name):
    """Or names its choices, all of them; None is one where the option allows it."""
    row = ROWS[name]
    assert literals(TYPES[name]) == row.option.choices
    if row.option.choices:
        assert (type(None) in typing.get_args(TYPES[name])) == (type(None) in typing.get_args(row.type))
    else:
        assert TYPES[name] == row.type


def test_the_signature_names_every_option_with_its_default():
    """For `help`, notebooks and editors that look at the function itself."""
    shown = inspect.signature(load_reranker).parameters
    assert list(shown) == ["model", "options", *ROWS]
    for name, row in ROWS.items():
        assert (shown[name].kind, shown[name].default) == (inspect.Parameter.KEYWORD_ONLY, row.default)
        assert shown[name].annotation == TYPES[name]
    assert load_reranker.__name__ == "load_reranker"


def test_keywords_are_options():
    """Those that are not given have their defaults."""
    options = RerankOptions(window_size=5, stride=2)
    assert (
        from_keywords(RerankOptions, None, keywords={"window_size": 5, "stride": 2}, where="load_reranker") == options
    )
    assert from_keywords(RerankOptions, None, keywords={}, where="load_reranker") is None
    assert from_keywords(RerankOptions, options, keywords={}, where="load_reranker") is options


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"dtpe": "bfloat16"}, "load_reranker: dtpe: unknown key; did you mean 'dtype'?"),
        ({"torch_dtype": "bfloat16"}, "load_reranker: torch_dtype: unknown key; did you mean 'dtype'?"),
        ({"batchsize": 8}, "load_reranker: batchsize: unknown key; did you mean 'batch_size'?"),
        ({"dtype": "float8"}, "dtype: expected one of auto, float32, bfloat16, float16; found 'float8'"),
        ({"window_size": "5"}, "window_size: expected an integer or None, found str '5'"),
    ],
)
def test_a_keyword_that_cannot_be_used_is_one_line(keywords, message):
    """Before a model is looked for."""
    with pytest.raises(ConfigError) as caught:
        load_reranker("no/such/model", **keywords)
    assert str(caught.value) == message


def test_options_are_given_in_one_way():
    """Which of two values counts would be a guess."""
    with pytest.raises(
        ConfigError, match=r"^load_reranker: dtype: cannot be combined with options; make it a field of RerankOptions"
    ):
        load_reranker("no/such/model", RerankOptions(), dtype="float32")


def test_a_servers_key_comes_from_the_environment(monkeypatch, no_proxy):
    """As on the command line; one that is given counts more."""
    monkeypatch.setenv("OPENAI_API_KEY", "from the environment")
    for given, sent in (({}, "from the environment"), ({"api_key": "given"}, "given")):
        with (
            serving(respond) as server,
            load_reranker("oracle", engine="openai", base_url=server.base_url, **given) as reranker,
        ):
            assert len(reranker.rank("q", TEXTS)) == len(TEXTS)
            assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {sent}"}
    assert with_environment_key(RerankOptions()).api_key is None


def test_what_loading_has_to_say_is_logged(tiny_causal, caplog):
    """Nobody looks into `warnings` unasked."""
    with (
        caplog.at_level(logging.WARNING, logger="rankllm_infer"),
        load_reranker(tiny_causal, dtype="float32", device="cpu") as reranker,
    ):
        assert reranker.warnings
    assert [record.getMessage() for record in caplog.records if record.name == "rankllm_infer"] == [
        f"{tiny_causal}: {warning}" for warning in reranker.warnings
    ]

"""Arguments of tool calls, validated: a request, or a one-line error that tells the calling model what to correct."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from rankllm_core.errors import RankLLMError
from rankllm_core.types import Request
from rankllm_infer.ranking.flow import make_request


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a single call."""

    max_documents: int = 200
    """Maximum number of documents that a call may rerank or retrieve."""
    request_timeout_s: float = 120.0
    takes_instruction: bool = False
    """True if the model's prompt takes an instruction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankCall:
    """A call of `rerank`."""

    request: Request
    top_n: int | None
    """Number of results to return; None: all."""
    with_documents: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchCall:
    """A call of `retrieve_and_rerank`."""

    query: str
    k: int
    """Number of documents to retrieve."""
    top_n: int
    instruction: str | None


DEFAULT_K, DEFAULT_TOP_N = 50, 10
"""Defaults of `retrieve_and_rerank`, kept small because returned documents fill the calling model's context."""


def read_rerank(given: Mapping[str, Any], limits: Limits) -> RerankCall:
    """Validate the arguments of `rerank`. Raises RankLLMError naming the argument."""
    _check_names(given, ("query", "documents", "top_n", "instruction", "return_documents"))
    documents = given.get("documents")
    if not isinstance(documents, list) or not documents:
        raise RankLLMError(f"documents: expected a list of at least one text or object, found {_kind(documents)}")
    if len(documents) > limits.max_documents:
        raise RankLLMError(
            f"documents: found {len(documents)}, expected at most {limits.max_documents}; "
            "rerank fewer per call, best first"
        )
    with_documents = given.get("return_documents", False)
    if not isinstance(with_documents, bool):
        raise RankLLMError(f"return_documents: expected true or false, found {_kind(with_documents)}")
    try:
        request = make_request(_text(given, "query"), documents, instruction=_instruction(given, limits))
    except RankLLMError as error:
        raise RankLLMError(_in_terms_of_documents(str(error))) from None
    return RerankCall(request=request, top_n=_count(given, "top_n"), with_documents=with_documents)


def read_search(given: Mapping[str, Any], limits: Limits) -> SearchCall:
    """Validate the arguments of `retrieve_and_rerank`. Raises RankLLMError naming the argument."""
    _check_names(given, ("query", "k", "top_n", "instruction"))
    k = _count(given, "k") or min(DEFAULT_K, limits.max_documents)
    if k > limits.max_documents:
        raise RankLLMError(f"k: found {k}, expected at most {limits.max_documents}")
    return SearchCall(
        query=_text(given, "query"),
        k=k,
        top_n=_count(given, "top_n") or DEFAULT_TOP_N,
        instruction=_instruction(given, limits),
    )


def _check_names(given: Mapping[str, Any], known: Collection[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise RankLLMError(f"{unknown[0][:60]!r}: unknown argument; expected {', '.join(known)}")


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value.strip():
        raise RankLLMError(f"{name}: expected a non-empty string, found {_kind(value)}")
    return value


def _count(given: Mapping[str, Any], name: str) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # In JSON Schema, 5.0 is an integer.
    if not is_number or value < 1 or value % 1 != 0:
        raise RankLLMError(f"{name}: expected an integer of at least 1, found {value if is_number else _kind(value)}")
    return int(value)


def _instruction(given: Mapping[str, Any], limits: Limits) -> str | None:
    if given.get("instruction") is None:
        return None
    if not limits.takes_instruction:
        raise RankLLMError("instruction: this model's prompt takes no instruction; leave it out")
    return _text(given, "instruction")


def _kind(value: object) -> str:
    """Describe what was found, in JSON terms."""
    if isinstance(value, str | list) and not value:
        return "an empty one"
    if isinstance(value, str) and not value.strip():
        return "only whitespace"
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def _in_terms_of_documents(message: str) -> str:
    """Rewrite messages of `make_request` in the tool's terms: documents with an id."""
    words = {
        "passage ": "document ",
        "query '1': docid": "documents: id",
        "each candidate once": "each document once",
        "or a mapping": "or an object",
    }
    for ours, theirs in words.items():
        message = message.replace(ours, theirs, 1)
    return message

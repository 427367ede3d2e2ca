"""Requests made in Python: built from texts, and checked before a model is asked for anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set

from rankllm_core.data.collections import DOCID_KEYS
from rankllm_core.errors import RankLLMError
from rankllm_core.files.json_text import as_id
from rankllm_core.text import title_and_text
from rankllm_core.types import Candidate, Query, Request


def make_request(query: str, passages: Iterable[str | Mapping[str, object]], *, qid: str = "1") -> Request:
    """A request from a query and passages in first-stage order.

    passages: texts, or mappings with the text under one of `rankllm_core.text.TEXT_FIELDS`, perhaps a `title`, and
    perhaps the docid under `pid`, `docid`, `_id` or `id`, the first of them that is there, as in a corpus file. A
    passage without one is called by its 1-based position. Ids may be integers. Scores fall from the number of passages
    to 1.
    Raises RankLLMError naming the passage, for anything else, and for a docid that occurs twice.
    """
    if isinstance(passages, str | bytes | Mapping | Set) or not isinstance(passages, Iterable):
        hint = "; put it into a list" if isinstance(passages, str | Mapping) else ""
        hint = "; a set has no order, use a list" if isinstance(passages, Set) else hint
        raise RankLLMError(f"passages: expected a list of texts or mappings, found {type(passages).__name__}{hint}")
    if not isinstance(query, str) or not query.strip():
        found = "an empty one" if isinstance(query, str) else type(query).__name__
        raise RankLLMError(f"query: expected a text, found {found}")
    stored = [_stored(passage, number) for number, passage in enumerate(passages, start=1)]
    n = len(stored)
    return Request(
        query=Query(qid=as_id(qid, what="qid"), text=query),
        candidates=tuple(
            Candidate(docid=docid, score=float(n - rank), doc=doc) for rank, (docid, doc) in enumerate(stored)
        ),
    )


def _stored(passage: object, number: int) -> tuple[str, dict[str, object]]:
    """(docid, doc) of one passage; the doc is without its docid, other keys in their order."""
    if isinstance(passage, str):
        return str(number), {"text": str(passage)}
    if not isinstance(passage, Mapping):
        raise RankLLMError(f"passage {number}: expected a text or a mapping, found {type(passage).__name__}")
    try:
        title_and_text(passage)
        key = next((key for key in DOCID_KEYS if key in passage), None)
        docid = str(number) if key is None else as_id(passage[key], what=key)
    except RankLLMError as error:
        raise RankLLMError(f"passage {number}: {str(error).removeprefix('passage: ')}") from None
    return docid, {name: value for name, value in passage.items() if name != key}


def checked_requests(requests: Iterable[Request]) -> Iterator[Request]:
    """The requests as they come. Raises RankLLMError naming the 1-based place of what is no Request."""
    if isinstance(requests, Request | Mapping | str | bytes) or not isinstance(requests, Iterable):
        hint = "; put it into a list" if isinstance(requests, Request) else ""
        raise RankLLMError(f"requests: expected an iterable of Request, found {type(requests).__name__}{hint}")
    return _each_checked(requests)


def _each_checked(requests: Iterable[Request]) -> Iterator[Request]:
    for number, request in enumerate(requests, start=1):
        if not isinstance(request, Request):
            raise RankLLMError(f"request {number}: expected a Request, found {type(request).__name__}")
        yield request

"""Requests and results as JSON, in rank_llm's old and new formats, and Tevatron's rerank-input rows.

Sources: castorini/rank_llm@1b3cabb src/rank_llm/data.py; texttron/tevatron@0545746
examples/rankllama/prepare_rerank_file.py; and data files published by both projects.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.files import dumps, read_jsonl, refuse_pipe, unpacked_name, write_text
from rankllm_core.files.json_array import holds_array, read_array
from rankllm_core.files.json_text import as_array, as_id, as_object, as_score, as_string, located, required
from rankllm_core.text import TEXT_FIELDS, title_and_text
from rankllm_core.types import Candidate, Query, Request, Result

_ROW_KEYS = frozenset({"docid", "score", "query_id", "query"})


def read_requests(path: str | Path) -> Iterator[Request]:
    """Yield the requests of a file: JSON Lines, or one array if the name ends in `.json`; optionally compressed.

    A record is `{"query": {"text", "qid"}, "candidates": [{"docid", "score", "doc"}]}`, optionally with an
    `instruction`; a line of rankllm's results; or rank_llm's old `{"query", "hits": [{"content", "qid", "docid",
    "score"}]}`. Candidates keep the file's order; ids may be integers; a missing score is 0.0; a doc that is a string
    becomes `{"contents": string}`; other keys are ignored, including `model_score`, which belongs to the reranker that
    wrote it.
    Raises DataError naming the line (of an array: where the record begins).
    """
    first_line: dict[str, int] = {}
    for line, record in _records(path):
        with located(path, line):
            request = parse_request(record)
            qid = request.query.qid
            if qid in first_line:
                raise RankLLMError(
                    f"query {qid!r} occurs again (first on line {first_line[qid]}); list each query once"
                )
        first_line[qid] = line
        yield request


def parse_request(record: Mapping[str, object]) -> Request:
    """Parse one record of a requests file. Raises RankLLMError without file and line."""
    if "hits" in record and "candidates" not in record:
        return _parse_hits(record)
    query = as_object(required(record, ("query",), what="request")[1], what="query")
    qid = as_id(required(query, ("qid",), what="query")[1], what="query.qid")
    text = as_string(required(query, ("text",), what=f"query {qid!r}")[1], what=f"query {qid!r}: text")
    entries = as_array(required(record, ("candidates",), what=f"query {qid!r}")[1], what=f"query {qid!r}: candidates")
    candidates = []
    for number, entry in enumerate(entries, start=1):
        candidate = _usual_candidate(entry)
        if candidate is None:
            try:
                candidate = _parse_candidate(as_object(entry, what="candidate"))
            except RankLLMError as error:
                raise RankLLMError(f"query {qid!r}, candidate {number}: {error}") from None
        candidates.append(candidate)
    return Request(query=Query(qid=qid, text=text, instruction=_instruction(record, qid)), candidates=tuple(candidates))


def _instruction(record: Mapping[str, object], qid: str) -> str | None:
    value = record.get("instruction")
    return None if value is None else as_string(value, what=f"query {qid!r}: instruction")


def _parse_candidate(entry: Mapping[str, object], *, doc: object = None) -> Candidate:
    """doc: the document, in formats that have no key of that name."""
    docid = as_id(required(entry, ("docid",), what="candidate")[1], what="docid")
    try:
        if doc is None:
            doc = required(entry, ("doc",), what="candidate")[1]
        if isinstance(doc, Mapping):
            _check_texts(doc)
        return Candidate(
            docid=docid,
            score=as_score(entry.get("score", 0.0)),
            doc={"contents": doc} if isinstance(doc, str) else as_object(doc, what="doc"),
        )
    except RankLLMError as error:
        raise RankLLMError(f"docid {docid!r}: {error}") from None


_WHOLE_FLOATS = 2**53
"""Smaller integers convert to float exactly."""


def _usual_candidate(entry: object) -> Candidate | None:
    """Return the candidate of a typical entry, at a third of the cost; None for any other, valid or not."""
    if type(entry) is not dict:
        return None
    docid, score, doc = entry.get("docid"), entry.get("score"), entry.get("doc")
    if type(score) is int and abs(score) < _WHOLE_FLOATS:
        score = float(score)
    if type(docid) is not str or type(score) is not float or type(doc) is not dict:
        return None
    if not (docid.isascii() and docid.isprintable() and docid.strip() and isfinite(score)):
        return None
    for value in doc.values():
        if type(value) is list or type(value) is dict:
            return None
    return Candidate(docid=docid, score=score, doc=doc)


def _check_texts(doc: Mapping[str, object]) -> None:
    """Raise RankLLMError for a title or text that is an array or object, which would fail only when prompting."""
    for value in doc.values():
        if type(value) is list or type(value) is dict:
            if not doc.keys().isdisjoint(TEXT_FIELDS):
                title_and_text(doc)
            return


def _parse_hits(record: Mapping[str, object]) -> Request:
    """Parse a record of the old format. The qid is in every hit instead of the query."""
    text = as_string(required(record, ("query",), what="request")[1], what="query")
    qid: str | None = None
    candidates = []
    for number, entry in enumerate(as_array(record["hits"], what="hits"), start=1):
        try:
            hit = as_object(entry, what="hit")
            hit_qid = as_id(required(hit, ("qid",), what="hit")[1], what="qid")
            if qid not in (None, hit_qid):
                raise RankLLMError(f"expected the qid {qid!r} of the previous hits, found {hit_qid!r}")
            content = as_string(required(hit, ("content",), what="hit")[1], what="content")
            candidates.append(_parse_candidate(hit, doc={"content": content}))
        except RankLLMError as error:
            raise RankLLMError(f"query {text!r}, hit {number}: {error}") from None
        qid = hit_qid
    if qid is None:
        raise RankLLMError(f"query {text!r}: expected at least one hit, which contains the qid, found none")
    return Request(query=Query(qid=qid, text=text), candidates=tuple(candidates))


def _records(path: str | Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    if not (unpacked_name(path).endswith(".json") and _may_hold_array(path)):
        # Files named .json that contain JSON Lines are common.
        yield from read_jsonl(path)
        return
    for line, value in read_array(path, describe=lambda problem, column, _: f"{problem} at column {column}"):
        with located(path, line):
            record = as_object(value, what="array element")
        yield line, record


def _may_hold_array(path: str | Path) -> bool:
    refuse_pipe(path)
    return holds_array(path)


def request_to_dict(request: Request) -> dict[str, object]:
    """Return a request as a record of a requests file, with keys in rank_llm's order."""
    return {
        "query": {"text": request.query.text, "qid": request.query.qid},
        **_with_instruction(request.query),
        "candidates": [
            {"docid": candidate.docid, "score": candidate.score, "doc": dict(candidate.doc)}
            for candidate in request.candidates
        ],
    }


def result_to_dict(result: Result) -> dict[str, object]:
    """Return a result as a record of a results file; `error` is included only if set, the trace is not."""
    record: dict[str, object] = {
        "query": {"text": result.query.text, "qid": result.query.qid},
        **_with_instruction(result.query),
        "candidates": [
            {
                "docid": candidate.docid,
                "score": candidate.score,
                "doc": dict(candidate.doc),
                "model_score": candidate.model_score,
                **({} if candidate.probability is None else {"probability": candidate.probability}),
            }
            for candidate in result.candidates
        ],
        "status": result.status,
        "defects": list(result.defects),
        "usage": {
            "calls": result.usage.calls,
            "rounds": result.usage.rounds,
            "prompt_tokens": result.usage.prompt_tokens,
            "completion_tokens": result.usage.completion_tokens,
        },
    }
    if result.n_ranked is not None:
        record["n_ranked"] = result.n_ranked
    if result.error is not None:
        record["error"] = result.error
    return record


def _with_instruction(query: Query) -> dict[str, object]:
    return {} if query.instruction is None else {"instruction": query.instruction}


def write_requests(path: str | Path, requests: Iterable[Request]) -> None:
    """Write a requests file: JSON Lines, or an array if the name ends in `.json` or `.json.gz`."""
    lines = (dumps(request_to_dict(request)) for request in requests)
    with write_text(path) as stream:
        if not unpacked_name(path).endswith(".json"):
            stream.writelines(line + "\n" for line in lines)
            return
        stream.write("[")
        stream.writelines((",\n" if number else "\n") + line for number, line in enumerate(lines))
        stream.write("\n]\n")


class _Row(NamedTuple):
    line: int
    query: Query
    candidate: Candidate


def read_rerank_input(path: str | Path) -> Iterator[Request]:
    """Yield one request per query of a Tevatron rerank-input file: JSON Lines, one line per (query, candidate).

    A row is `{"docid", "title", "text", "score", "query_id", "query"}`; all other keys are kept in the doc; a missing
    score is 0.0. The rows of a query must be contiguous, so that only one query is in memory at a time.
    Raises DataError naming the line.
    """
    lines: dict[str, tuple[int, int]] = {}
    for qid, rows in groupby(_rerank_rows(path), key=lambda row: row.query.qid):
        group = list(rows)
        if qid in lines:
            first, last = lines[qid]
            message = f"query {qid!r} occurs again after its rows {first} to {last}; group the rows by query"
            raise DataError(message, path=path, line=group[0].line)
        lines[qid] = (group[0].line, group[-1].line)
        yield _join_rows(path, group)


def _rerank_rows(path: str | Path) -> Iterator[_Row]:
    for line, record in read_jsonl(path):
        with located(path, line):
            qid = as_id(required(record, ("query_id",), what="row")[1], what="query_id")
            text = as_string(required(record, ("query",), what=f"query {qid!r}")[1], what=f"query {qid!r}: query")
            doc = {key: value for key, value in record.items() if key not in _ROW_KEYS}
            try:
                candidate = _parse_candidate(record, doc=doc)
            except RankLLMError as error:
                raise RankLLMError(f"query {qid!r}, {error}") from None
        yield _Row(line, Query(qid=qid, text=text), candidate)


def _join_rows(path: str | Path, rows: list[_Row]) -> Request:
    query = rows[0].query
    first_line: dict[str, int] = {}
    for row in rows:
        docid = row.candidate.docid
        with located(path, row.line):
            if row.query.text != query.text:
                raise RankLLMError(f"query {query.qid!r} has a different text than on line {rows[0].line}")
            if docid in first_line:
                first = f"(first on line {first_line[docid]}); list each candidate once"
                raise RankLLMError(f"query {query.qid!r}: docid {docid!r} occurs again {first}")
        first_line[docid] = row.line
    return Request(query=query, candidates=tuple(row.candidate for row in rows))


def write_rerank_input(path: str | Path, requests: Iterable[Request]) -> None:
    """Write a Tevatron rerank-input file. A request without candidates has no rows and is lost.

    If a doc has fields called docid, score, query_id or query, they are replaced by the row's.
    """
    with write_text(path) as stream:
        for request in requests:
            for candidate in request.candidates:
                doc = {key: value for key, value in candidate.doc.items() if key not in _ROW_KEYS}
                row = {"docid": candidate.docid, **doc, "score": candidate.score}
                row |= {"query_id": request.query.qid, "query": request.query.text}
                stream.write(json.dumps(row) + "\n")  # ASCII escapes, as in the original

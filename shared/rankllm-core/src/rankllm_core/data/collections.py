"""Corpora and query files: TSV and JSON Lines, in the formats of Tevatron, BEIR, Anserini and MS MARCO."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.files import read_jsonl, read_lines, unpacked_name
from rankllm_core.files.json_text import as_id, as_string, located, required, shown
from rankllm_core.text import TEXT_FIELDS, title_and_text

# MS MARCO v2 passages have both: `pid` is the passage, `docid` the document that it was taken from.
DOCID_KEYS = ("pid", "docid", "_id", "id")
"""Keys that may contain a corpus record's docid; the first one present is used."""
QID_KEYS = ("query_id", "qid", "_id", "id")
"""Keys that may contain a query record's qid; the first one present is used."""
QUERY_TEXT_KEYS = ("query", "text")
"""Keys that may contain a query record's text; the first one present is used."""


def read_corpus(path: str | Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Stream (docid, doc) from a corpus. The doc is the record without its docid, with the other keys in order.

    JSON Lines (`.jsonl`, `.json`): an id under DOCID_KEYS and a text under rankllm_core.text.TEXT_FIELDS.
    Everything else is TSV: `docid TAB text`, `docid TAB title TAB text`, or columns named by the first line; the doc
    then has `title` and `text`. Repeated docids are not detected. Raises like `rankllm_core.files.read_lines`, and
    DataError naming the line, also for a text or title that is an array or an object.
    """
    for _, docid, doc in _corpus_rows(path):
        yield docid, doc


def lines_of_docid(path: str | Path, docid: str) -> list[int]:
    """Return the 1-based lines of a corpus with this docid. For errors, since readers do not store millions of
    lines."""
    return [line for line, found, _ in _corpus_rows(path) if found == docid]


def two_contents(path: str | Path, docid: str) -> RankLLMError:
    """Return the error for a docid with two different passages, with their lines; reads the corpus again."""
    lines = ", ".join(map(str, lines_of_docid(path, docid)[:5]))
    return RankLLMError(
        f"{path}: docid {docid!r} occurs twice, with different contents (lines {lines}); docids must be unique"
    )


def _corpus_rows(path: str | Path) -> Iterator[tuple[int, str, dict[str, object]]]:
    """Yield (1-based line number, docid, doc)."""
    if _is_jsonl(path):
        for line, record in read_jsonl(path):
            with located(path, line):
                docid, doc = parse_corpus_record(record)
            yield line, docid, doc
        return
    columns: list[str] | None = None
    for index, (line, fields) in enumerate(_tsv_rows(path)):
        if index == 0 and fields[0] in DOCID_KEYS:
            columns = fields
            continue
        with located(path, line):
            docid, doc = _corpus_fields(fields, columns)
        yield line, docid, doc


def parse_corpus_record(record: Mapping[str, object]) -> tuple[str, dict[str, object]]:
    """Return (docid, doc) for one corpus record. Raises RankLLMError without file and line."""
    key, value = required(record, DOCID_KEYS, what="passage")
    docid = as_id(value, what=key)
    _, text = required(record, TEXT_FIELDS, what=f"passage {docid!r}")
    if not (isinstance(text, str) and isinstance(record.get("title", ""), str)):
        _check_texts(docid, record)
    return docid, {name: field for name, field in record.items() if name != key}


def _check_texts(docid: str, record: Mapping[str, object]) -> None:
    try:
        title_and_text(record)
    except RankLLMError as error:
        raise RankLLMError(f"docid {docid!r}: {error}") from None


def read_queries(path: str | Path) -> dict[str, str]:
    """Read qid -> text, in file order.

    JSON Lines (`.jsonl`, `.json`): QID_KEYS and QUERY_TEXT_KEYS. Everything else is TSV, `qid TAB text`, optionally
    with a line that names the columns.
    Raises like `rankllm_core.files.read_lines`, and DataError naming the line, also for an empty text and for a qid
    with two different texts.
    """
    return collect_queries(_query_records(path), source=path)


def collect_queries(records: Iterable[tuple[int, Mapping[str, object]]], *, source: str | Path) -> dict[str, str]:
    """Collect qid -> text from (1-based number, record) pairs. Raises DataError naming `source` and the number."""
    texts: dict[str, str] = {}
    first_line: dict[str, int] = {}
    for line, record in records:
        with located(source, line):
            qid, text = parse_query_record(record)
            if texts.setdefault(qid, text) != text:
                before = f"{shown(texts[qid])} in line {first_line[qid]}"
                raise RankLLMError(f"query {qid!r} has two texts: {before}, {shown(text)} here")
        first_line.setdefault(qid, line)
    return texts


def parse_query_record(record: Mapping[str, object]) -> tuple[str, str]:
    """Return (qid, text) for one query record. Raises RankLLMError without file and line."""
    key, value = required(record, QID_KEYS, what="query")
    qid = as_id(value, what=key)
    key, value = required(record, QUERY_TEXT_KEYS, what=f"query {qid!r}")
    text = as_string(value, what=f"query {qid!r}: {key}")
    if not text.strip():
        raise RankLLMError(f"query {qid!r}: expected a text, found an empty one")
    return qid, text


def _is_jsonl(path: str | Path) -> bool:
    return unpacked_name(path).endswith((".jsonl", ".json", ".ndjson"))


def _query_records(path: str | Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    if _is_jsonl(path):
        yield from read_jsonl(path)
        return
    for index, (line, fields) in enumerate(_tsv_rows(path)):
        if len(fields) != 2:
            raise DataError(_wrong_width("2 tab-separated fields (qid, text)", fields), path=path, line=line)
        if index == 0 and fields[0] in QID_KEYS and fields[1] in QUERY_TEXT_KEYS:
            continue
        yield line, {"qid": fields[0], "text": fields[1]}


def _tsv_rows(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (1-based line number, fields), without blanks around the id and without trailing empty fields."""
    for index, (line, text) in enumerate(read_lines(path)):
        if index == 0:
            with located(path, line):
                _check_is_table(text)
        fields = text.split("\t")
        while len(fields) > 2 and not fields[-1]:
            fields.pop()
        fields[0] = fields[0].strip(" ")  # ids in runs never start or end with a space
        yield line, fields


def _check_is_table(first_line: str) -> None:
    if "\t" in first_line:
        return
    text = first_line.lstrip()
    if text.startswith("<"):
        raise RankLLMError(
            f"TREC or XML markup ({shown(text)}) is not supported; expected tab-separated lines (id, text) or JSON "
            "Lines"
        )
    if text.startswith("{"):
        raise RankLLMError("expected tab-separated lines, found a JSON object; JSON Lines files must be named .jsonl")


def _corpus_fields(fields: list[str], columns: list[str] | None) -> tuple[str, dict[str, object]]:
    if columns is None:
        if len(fields) not in (2, 3):
            raise RankLLMError(_wrong_width("2 or 3 tab-separated fields (docid, text or docid, title, text)", fields))
        title = fields[1] if len(fields) == 3 else ""
        return as_id(fields[0], what="docid"), {"title": title, "text": fields[-1]}
    if len(fields) > len(columns):
        raise RankLLMError(_wrong_width(f"{len(columns)} tab-separated fields ({', '.join(columns)})", fields))
    padded = fields + [""] * (len(columns) - len(fields))
    return parse_corpus_record(dict(zip(columns, padded, strict=True)))


def _wrong_width(expected: str, fields: list[str]) -> str:
    return f"expected {expected}, found {len(fields)}: {shown(chr(9).join(fields))}"

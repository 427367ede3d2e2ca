"""The texts that a page shows: its queries, and of their passages those that are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankllm_core.data.collections import read_corpus, read_queries
from rankllm_core.data.records import read_requests, read_rerank_input
from rankllm_core.errors import RankLLMError
from rankllm_core.text import title_and_text
from rankllm_infer.formats.convert import detect_format
from rankllm_infer.watching import examples

Needed = Mapping[str, Sequence[str]]
"""qid -> docids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A passage as it is shown."""

    title: str
    text: str
    """Its beginning."""
    n_left_out: int
    """Characters behind that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Texts of queries and passages; what has none is not in here."""

    source: str
    """Where they come from, for people."""
    queries: Mapping[str, str]
    """qid -> text."""
    passages: Mapping[str, Mapping[str, Passage]]
    """qid -> docid -> passage; a passage may differ from query to query."""

    def missing_qids(self, needed: Needed) -> list[str]:
        """Queries without a text."""
        return [qid for qid in needed if qid not in self.queries]

    def missing_docids(self, needed: Needed) -> list[str]:
        """Passages without a text, of the queries that have one."""
        texts = ((qid, docids, self.passages.get(qid, {})) for qid, docids in needed.items() if qid in self.queries)
        return list(dict.fromkeys(docid for _, docids, known in texts for docid in docids if docid not in known))

    def check(self, needed: Needed) -> None:
        """Raise RankLLMError where no query, or no passage, has a text: the files are not of one set."""
        if not any(qid in self.queries for qid in needed):
            raise RankLLMError(
                f"{self.source}: holds none of the run's {len(needed)} queries (the run has {examples(needed)}; "
                f"this has {examples(self.queries) or 'none'}); use the texts that belong to the run"
            )
        docids = [docid for qid in needed if qid in self.queries for docid in needed[qid]]
        if docids and not any(self.passages.values()):
            raise RankLLMError(
                f"{self.source}: holds none of the run's passages ({examples(docids)}); "
                "use the texts that belong to the run"
            )


def texts_of_requests(path: Path, needed: Needed, *, characters: int) -> Texts:
    """From a requests, results or rerank-input file, read query by query. characters: kept of each passage."""
    read = read_rerank_input if detect_format(path) == "rerank-input" else read_requests
    queries: dict[str, str] = {}
    passages: dict[str, dict[str, Passage]] = {}
    for request in read(path):
        qid = request.query.qid
        queries[qid] = request.query.text
        passages[qid] = {
            candidate.docid: shown_passage(candidate.doc, characters)
            for candidate in request.candidates
            if candidate.docid in needed.get(qid, ())
        }
    return Texts(source=str(path), queries=queries, passages=passages)


def texts_of_collection(queries: Path, corpus: Path, needed: Needed, *, characters: int) -> Texts:
    """From a file of queries and a corpus, which is read as a stream. characters: kept of each passage."""
    wanted = {docid for docids in needed.values() for docid in docids}
    found = {docid: shown_passage(doc, characters) for docid, doc in read_corpus(corpus) if docid in wanted}
    return Texts(
        source=f"{queries} and {corpus}",
        queries=read_queries(queries),
        passages={qid: {docid: found[docid] for docid in docids if docid in found} for qid, docids in needed.items()},
    )


def shown_passage(doc: Mapping[str, object], characters: int) -> Passage:
    """The title and the first `characters` of the text. One without a text field is an empty passage."""
    try:
        title, text = title_and_text(doc)
    except RankLLMError:
        title, text = "", ""
    text = text.strip()
    return Passage(title=title.strip()[:characters], text=text[:characters], n_left_out=max(0, len(text) - characters))

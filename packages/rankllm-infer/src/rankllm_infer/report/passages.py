"""Texts that a page shows: its queries, and the passages shown for them."""

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
    """A passage as shown on the page."""

    title: str
    text: str
    """Start of the text."""
    n_left_out: int
    """Number of characters omitted after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Texts of queries and passages; those without text are missing."""

    source: str
    """Source of the texts, for messages."""
    queries: Mapping[str, str]
    """qid -> text."""
    passages: Mapping[str, Mapping[str, Passage]]
    """qid -> docid -> passage; a passage may differ between queries."""

    def missing_qids(self, needed: Needed) -> list[str]:
        """Return queries without text."""
        return [qid for qid in needed if qid not in self.queries]

    def missing_docids(self, needed: Needed) -> list[str]:
        """Return passages without text, for queries that have one."""
        texts = ((qid, docids, self.passages.get(qid, {})) for qid, docids in needed.items() if qid in self.queries)
        return list(dict.fromkeys(docid for _, docids, known in texts for docid in docids if docid not in known))

    def check(self, needed: Needed) -> None:
        """Raise RankLLMError if no query or no passage has a text, so that the files do not belong together."""
        if not any(qid in self.queries for qid in needed):
            raise RankLLMError(
                f"{self.source}: contains none of the run's {len(needed)} queries (the run has {examples(needed)}; "
                f"this source has {examples(self.queries) or 'none'}); use the texts that belong to the run"
            )
        docids = [docid for qid in needed if qid in self.queries for docid in needed[qid]]
        if docids and not any(self.passages.values()):
            raise RankLLMError(
                f"{self.source}: contains none of the run's passages ({examples(docids)}); "
                "use the texts that belong to the run"
            )


def texts_of_requests(path: Path, needed: Needed, *, characters: int) -> Texts:
    """Read texts from a requests, results or rerank-input file, query by query. characters: maximum per passage."""
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
    """Read texts from a file of queries and a corpus, which is streamed. characters: maximum per passage."""
    wanted = {docid for docids in needed.values() for docid in docids}
    found = {docid: shown_passage(doc, characters) for docid, doc in read_corpus(corpus) if docid in wanted}
    return Texts(
        source=f"{queries} and {corpus}",
        queries=read_queries(queries),
        passages={qid: {docid: found[docid] for docid in docids if docid in found} for qid, docids in needed.items()},
    )


def shown_passage(doc: Mapping[str, object], characters: int) -> Passage:
    """Return the title and the first `characters` of the text. A document without text field is an empty passage."""
    try:
        title, text = title_and_text(doc)
    except RankLLMError:
        title, text = "", ""
    text = text.strip()
    return Passage(title=title.strip()[:characters], text=text[:characters], n_left_out=max(0, len(text) - characters))

"""Requests and judgements of a run, read through and checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rankllm_core.errors import RankLLMError
from rankllm_infer.evaluation.judgements import check_judged

if TYPE_CHECKING:
    from rankllm_core.trec import Qrels
    from rankllm_core.types import Request
    from rankllm_infer.jobs.fingerprint import InputDigest
    from rankllm_infer.jobs.outputs import OutputFiles


@dataclass(frozen=True, slots=True)
class StoredRequests:
    """The requests of a file, read anew each time, so that only the one at hand is in memory."""

    path: Path
    is_pairs: bool
    """Whether it holds one pair a line, as `prepare` writes them."""
    max_queries: int | None
    depth: int | None = None
    """Candidates of each query that count; the others are left out."""

    def __iter__(self) -> Iterator[Request]:
        from rankllm_core.data.records import read_requests, read_rerank_input

        read = read_rerank_input if self.is_pairs else read_requests
        for request in islice(read(self.path), self.max_queries):
            is_cut = self.depth is not None and len(request.candidates) > self.depth
            yield replace(request, candidates=request.candidates[: self.depth]) if is_cut else request


def check_requests(
    requests: Iterable[Request],
    files: OutputFiles,
    *,
    strict: bool,
    digest: InputDigest | None = None,
    sizes: dict[str, int] | None = None,
) -> list[str]:
    """Read all requests once and return their qids. digest: receives all of them. sizes: receives qid -> candidates.

    Raises RankLLMError for what would come to light only after hours: a line that cannot be read, an id that the run's
    format cannot carry, and, if strict, a query without candidates or a passage without text.
    """
    qids = []
    for request in requests:
        if files.run is not None:
            _check_ids(request, files)
        if strict:
            _check_complete(request)
        if digest is not None:
            digest.add(request)
        if sizes is not None:
            sizes[request.query.qid] = len(request.candidates)
        qids.append(request.query.qid)
    if not qids:
        raise RankLLMError("the input holds no query; nothing to rerank")
    return qids


def load_qrels(path: Path, qids: Iterable[str]) -> Qrels:
    """The judgements. Raises RankLLMError where they are of another set than the queries."""
    from rankllm_core.trec import read_qrels

    qrels = read_qrels(path)
    check_judged(qrels, qids, source=path)
    return qrels


def _check_ids(request: Request, files: OutputFiles) -> None:
    """Write the candidates as they came, to see whether the format can carry their ids."""
    from rankllm_core.trec import run_lines

    n = len(request.candidates)
    ranking = [(candidate.docid, float(n - rank)) for rank, candidate in enumerate(request.candidates)]
    try:
        run_lines(request.query.qid, ranking, format=files.run_layout, tag=files.tag)
    except RankLLMError as error:
        hint = " (--output-format tsv)" if files.run_layout == "trec" else ""
        raise RankLLMError(f"{files.run} cannot be written: {error}{hint}") from None


def _check_complete(request: Request) -> None:
    from rankllm_core.text import title_and_text

    where = f"query {request.query.qid!r}"
    if not request.candidates:
        raise RankLLMError(f"{where}: no candidates (--strict)")
    for candidate in request.candidates:
        try:
            title_and_text(candidate.doc)
        except RankLLMError as error:
            raise RankLLMError(f"{where}, docid {candidate.docid!r}: {error} (--strict)") from None

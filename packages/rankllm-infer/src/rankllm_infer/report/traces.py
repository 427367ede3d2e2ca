"""Model calls, with prompts and answers, from a file written by `rerank --trace`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from rankllm_core.errors import RankLLMError
from rankllm_core.files import read_jsonl
from rankllm_core.files.json_text import as_array, as_id, as_object, as_score, as_string, found, located, required
from rankllm_core.types import Status, Usage
from rankllm_infer.report.ranked_files import as_count


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One model call."""

    start: int | None
    """0-based rank of the first passage shown; None if the passages were not a slice of the ranking."""
    docids: tuple[str, ...]
    """In the order in which the prompt showed them."""
    order: tuple[int, ...]
    """Positions in `docids`, best first, as read from the answer."""
    prompt: str
    """Start of the prompt."""
    n_prompt_characters: int
    """Length of the complete prompt."""
    response: str
    scores: tuple[float | None, ...]
    """One score per identifier, if the order was determined by scores; None for identifiers the model did not
    report."""
    status: Status
    defects: tuple[str, ...]
    usage: Usage

    @property
    def passage_scores(self) -> tuple[float | None, ...]:
        """One score for each of `docids`; empty if the trace contains a different number."""
        return self.scores if len(self.scores) == len(self.docids) else ()

    @property
    def yes_no(self) -> tuple[float | None, float | None] | None:
        """Scores of yes and no for a single passage; None if the trace does not contain such a pair."""
        if len(self.docids) != 1 or len(self.scores) != 2:
            return None
        yes, no = self.scores
        return yes, no


def read_traces(path: Path, *, prompt_characters: int) -> dict[str, tuple[Call, ...]]:
    """Return qid -> calls in order. The first `prompt_characters` of each prompt are kept.

    Raises RankLLMError (DataError with the line) if the file is not a trace written by `rerank --trace`.
    """
    traces: dict[str, tuple[Call, ...]] = {}
    for line, record in read_jsonl(path):
        with located(path, line):
            query = as_object(required(record, ("query",), what="trace")[1], what="query")
            qid = as_id(required(query, ("qid",), what="query")[1], what="query.qid")
            if qid in traces:
                raise RankLLMError(f"query {qid!r} occurs twice; expected each query once")
            calls = as_array(required(record, ("invocations_history",), what="trace")[1], what="invocations_history")
            traces[qid] = tuple(
                _call(as_object(call, what="call"), what=f"query {qid!r}, call {number}", keep=prompt_characters)
                for number, call in enumerate(calls, start=1)
            )
    return traces


def usage_of(calls: tuple[Call, ...]) -> Usage:
    """Return the total usage of one query's calls. Rounds are not recorded in a trace and are 0."""
    return sum((call.usage for call in calls), Usage())


def _call(record: Mapping[str, object], *, what: str, keep: int) -> Call:
    def field(name: str) -> object:
        return required(record, (name,), what=what)[1]

    docids = tuple(as_id(docid, what=f"{what}: docids") for docid in as_array(field("docids"), what=f"{what}: docids"))
    order = tuple(as_count(place, what=f"{what}: order") for place in as_array(field("order"), what=f"{what}: order"))
    if sorted(order) != list(range(len(docids))):
        raise RankLLMError(f"{what}: order: expected each position of {len(docids)} docids once, found {list(order)}")
    status = field("status")
    if status not in get_args(Status):
        raise RankLLMError(f"{what}: status: expected one of {', '.join(get_args(Status))}; found {found(status)}")
    prompt = as_string(field("prompt"), what=f"{what}: prompt")
    start = record.get("start")
    return Call(
        start=None if start is None else as_count(start, what=f"{what}: start"),
        docids=docids,
        order=order,
        prompt=prompt[:keep],
        n_prompt_characters=len(prompt),
        response=as_string(field("response"), what=f"{what}: response"),
        scores=_scores(record.get("scores"), what=f"{what}: scores"),
        status=cast(Status, status),
        defects=tuple(
            as_string(defect, what=f"{what}: defects") for defect in as_array(field("defects"), what=f"{what}: defects")
        ),
        usage=Usage(
            calls=1,
            prompt_tokens=as_count(field("input_token_count"), what=f"{what}: input_token_count"),
            completion_tokens=as_count(field("output_token_count"), what=f"{what}: output_token_count"),
        ),
    )


def _scores(value: object, *, what: str) -> tuple[float | None, ...]:
    entries = [] if value is None else as_array(value, what=what)
    try:
        return tuple(None if entry is None else as_score(entry) for entry in entries)
    except RankLLMError:
        raise RankLLMError(f"{what}: expected finite numbers or null, found {entries!r:.60}") from None

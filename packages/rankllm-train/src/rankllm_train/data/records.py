"""Training records: listwise conversations (RankZephyr, FIRST) and pointwise groups (RankLLaMA), read one at a time.

Formats: castorini/rank_llm@1b3cabb training/utils/data_utils.py and texttron/tevatron@dd06310
src/tevatron/reranker/dataset.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.files.json_text import as_array, as_id, as_object, as_score, as_string, found, located, required
from rankllm_core.text import as_text
from rankllm_train.data.json_records import read_json_records

_ROLES = {"system": "system", "human": "human", "user": "human", "gpt": "gpt", "assistant": "gpt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListwiseRecord:
    """Conversation with a window of passages and the order that a teacher gave them."""

    path: str
    """File it was read from, named in errors together with `line`."""
    line: int
    """1-based line where the record starts."""
    id: str
    """Id in the data; `line 17` if it has none."""
    system: str | None
    """System turn; None if there is none, as in listwise_dl20."""
    prompt: str
    """Human turn: the passages and the instruction. The passages are untrusted text."""
    target: str
    """Answer to learn, such as `[2] > [1] > [3]`."""
    query: str | None = None
    """The query alone, if the record contains it; the prompt always does."""
    docids: tuple[str | None, ...] = ()
    """Docids in prompt order, if the record has them; a docid may occur twice, or be null if unknown."""
    positive_docids: tuple[str, ...] = ()
    """Docids judged relevant, if the record has them."""

    def error(self, message: str) -> DataError:
        """Return an error about this record, naming file, line and record."""
        return DataError(f"record {self.id!r}: {message}", path=self.path, line=self.line)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPassage:
    """Passage of a pointwise record."""

    docid: str
    title: str
    """Empty if the record has none."""
    text: str
    teacher_score: float | None = None
    """Teacher model's score of the pair, in logits, for distillation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointwiseRecord:
    """Query with positive and negative passages."""

    path: str
    line: int
    """1-based line where the record starts."""
    qid: str
    query: str
    positives: tuple[TrainingPassage, ...]
    """At least one."""
    negatives: tuple[TrainingPassage, ...]

    def error(self, message: str) -> DataError:
        """Return an error about this record, naming file, line and query."""
        return DataError(f"query {self.qid!r}: {message}", path=self.path, line=self.line)

    @property
    def has_teacher(self) -> bool:
        """Whether every passage has a teacher score; records where only some have one are rejected."""
        return self.positives[0].teacher_score is not None


def read_listwise(path: str | Path) -> Iterator[ListwiseRecord]:
    """Yield the records of a listwise training file: JSON Lines or an array, optionally compressed.

    A record is `{"id", "conversations": [{"from", "value"}, ...]}`: an optional system turn, then a human and a gpt
    turn. `query`, `docids` and `positive_docids` are kept, other keys ignored. Whether the target ranks the passages of
    the prompt is checked by `target_ranks`, or `check_listwise` for a whole file. Raises DataError naming file, line
    and record.
    """
    for line, value in read_json_records(path):
        if isinstance(value, DataError):
            raise value
        yield parse_listwise(value, path=path, line=line)


def parse_listwise(record: Mapping[str, object], *, path: str | Path, line: int) -> ListwiseRecord:
    """Parse one record of a listwise training file. Raises DataError naming `path`, `line` and the record."""
    with located(path, line):
        record_id = as_id(record["id"], what="id") if "id" in record else f"line {line}"
        try:
            system, prompt, target = _turns(record)
            query = record.get("query")
            docids = as_array(record.get("docids", []), what="docids")
            positive_docids = as_array(record.get("positive_docids", []), what="positive_docids")
            return ListwiseRecord(
                path=str(path),
                line=line,
                id=record_id,
                system=system,
                prompt=prompt,
                target=target,
                query=None if query is None else as_string(query, what="query"),
                docids=tuple(None if docid is None else as_id(docid, what="docids") for docid in docids),
                positive_docids=tuple(as_id(docid, what="positive_docids") for docid in positive_docids),
            )
        except RankLLMError as error:
            raise RankLLMError(f"record {record_id!r}: {error}") from None


def _turns(record: Mapping[str, object]) -> tuple[str | None, str, str]:
    """Return system turn, prompt and target."""
    entries = as_array(required(record, ("conversations",), what="record")[1], what="conversations")
    roles, values = [], []
    for number, entry in enumerate(entries, start=1):
        turn = as_object(entry, what=f"turn {number}")
        role = required(turn, ("from",), what=f"turn {number}")[1]
        if not isinstance(role, str) or role not in _ROLES:
            raise RankLLMError(f"turn {number}: from: expected 'system', 'human' or 'gpt', found {found(role)}")
        roles.append(_ROLES[role])
        value = required(turn, ("value",), what=f"turn {number} ({role})")[1]
        values.append(as_string(value, what=f"turn {number} ({role}): value"))
    if roles not in (["system", "human", "gpt"], ["human", "gpt"]):
        turns = ", ".join(roles) or "none"
        raise RankLLMError(f"expected the turns human and gpt, optionally after a system turn; found {turns}")
    for name, value in (("prompt (human turn)", values[-2]), ("target (gpt turn)", values[-1])):
        if not value.strip():
            raise RankLLMError(f"the {name} is empty")
    return values[0] if len(values) == 3 else None, values[-2], values[-1]


def read_pointwise(path: str | Path) -> Iterator[PointwiseRecord]:
    """Yield the records of a pointwise training file: JSON Lines or an array, optionally compressed.

    A record is `{"query_id", "query", "positive_passages": [...], "negative_passages": [...]}` with passages
    `{"docid", "title", "text"}`, where `title` is optional and `teacher_score` may be added; or, with teacher scores,
    `{"query_id", "query", "passages": [{"title", "text"}], "scores": [...]}` with the positive first. A passage without
    a docid is called `QID#0`, `QID#1`, ... as in Tevatron. Either all passages of a record have a teacher score or
    none. Raises DataError naming file, line and query.
    """
    for line, value in read_json_records(path):
        if isinstance(value, DataError):
            raise value
        yield parse_pointwise(value, path=path, line=line)


def parse_pointwise(record: Mapping[str, object], *, path: str | Path, line: int) -> PointwiseRecord:
    """Parse one record of a pointwise training file. Raises DataError naming `path`, `line` and the query."""
    with located(path, line):
        qid = as_id(required(record, ("query_id",), what="record")[1], what="query_id")
        try:
            query = as_string(required(record, ("query",), what="record")[1], what="query")
            is_scored_list = "passages" in record and "positive_passages" not in record
            positives, negatives = (_scored_list if is_scored_list else _labelled)(record, qid)
            scores = [passage.teacher_score for passage in positives + negatives]
            n_missing = scores.count(None)
            if n_missing not in (0, len(scores)):
                raise RankLLMError(
                    f"expected a teacher score for all {len(scores)} passages or for none, but {n_missing} have none"
                )
            return PointwiseRecord(
                path=str(path), line=line, qid=qid, query=query, positives=positives, negatives=negatives
            )
        except RankLLMError as error:
            raise RankLLMError(f"query {qid!r}: {error}") from None


_Passages = tuple[TrainingPassage, ...]


def _labelled(record: Mapping[str, object], qid: str) -> tuple[_Passages, _Passages]:
    lists: list[_Passages] = []
    n_before = 0
    for key in ("positive_passages", "negative_passages"):
        entries = as_array(required(record, (key,), what="record")[1], what=key)
        lists.append(
            tuple(
                _passage(entry, what=f"{key}, passage {number + 1}", docid=f"{qid}#{n_before + number}")
                for number, entry in enumerate(entries)
            )
        )
        n_before += len(entries)
    positives, negatives = lists
    if not positives:
        raise RankLLMError("positive_passages is empty; add a passage, or remove the record")
    return positives, negatives


def _scored_list(record: Mapping[str, object], qid: str) -> tuple[_Passages, _Passages]:
    entries = as_array(record["passages"], what="passages")
    scores = as_array(required(record, ("scores",), what="record")[1], what="scores")
    if not entries or len(entries) != len(scores):
        raise RankLLMError(f"expected one score per passage, found {len(scores)} scores and {len(entries)} passages")
    passages = tuple(
        _passage(entry, what=f"passages, passage {number + 1}", docid=f"{qid}#{number}", score=score)
        for number, (entry, score) in enumerate(zip(entries, scores, strict=True))
    )
    return passages[:1], passages[1:]


def _passage(entry: object, *, what: str, docid: str, score: object = None) -> TrainingPassage:
    """Parse a passage. docid: name of a passage that has none. score: the teacher's, if it is stored outside the
    passage."""
    passage = as_object(entry, what=what)
    teacher_score = passage.get("teacher_score") if score is None else score
    try:
        return TrainingPassage(
            docid=as_id(passage.get("docid", docid), what="docid"),
            title=as_text(passage.get("title")),
            text=as_string(required(passage, ("text",), what="passage")[1], what="text"),
            teacher_score=None if teacher_score is None else as_score(teacher_score),
        )
    except RankLLMError as error:
        raise RankLLMError(f"{what}: {error}") from None

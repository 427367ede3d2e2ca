"""Training records: listwise conversations (RankZephyr, FIRST) and pointwise groups (RankLLaMA), read one at a time.

Layouts: castorini/rank_llm@1b3cabb training/utils/data_utils.py and texttron/tevatron@dd06310
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
    """A window of passages and the order a teacher gave them, as a conversation."""

    path: str
    """The file it was read from; with `line`, what an error about it names."""
    line: int
    """1-based line where it begins."""
    id: str
    """Its name in the data; `line 17` where it has none."""
    system: str | None
    """The system turn; None where there is none, as in listwise_dl20."""
    prompt: str
    """The human turn: the passages and what to do with them. The passages in it are untrusted text."""
    target: str
    """The answer to learn, such as `[2] > [1] > [3]`."""
    query: str | None = None
    """The query alone, where the record gives it; the prompt holds it in any case."""
    docids: tuple[str | None, ...] = ()
    """Docids in prompt order, where the record gives them; a list may hold one twice, or null for an unknown one."""
    positive_docids: tuple[str, ...] = ()
    """Those judged relevant, where the record gives them."""

    def error(self, message: str) -> DataError:
        """An error about this record: its message names file, line and record."""
        return DataError(f"record {self.id!r}: {message}", path=self.path, line=self.line)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPassage:
    """A passage of a pointwise record."""

    docid: str
    title: str
    """Empty where the record gives none."""
    text: str
    teacher_score: float | None = None
    """What a teacher model scores the pair, in logits; for distillation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointwiseRecord:
    """A query with passages that answer it and passages that do not."""

    path: str
    line: int
    """1-based line where it begins."""
    qid: str
    query: str
    positives: tuple[TrainingPassage, ...]
    """At least one."""
    negatives: tuple[TrainingPassage, ...]

    def error(self, message: str) -> DataError:
        """An error about this record: its message names file, line and query."""
        return DataError(f"query {self.qid!r}: {message}", path=self.path, line=self.line)

    @property
    def has_teacher(self) -> bool:
        """Whether every passage has a teacher score; records where only some have one are not read."""
        return self.positives[0].teacher_score is not None


def read_listwise(path: str | Path) -> Iterator[ListwiseRecord]:
    """Yield the records of a listwise training file: JSON Lines or an array, plain or compressed.

    A record is `{"id", "conversations": [{"from", "value"}, ...]}`: a system turn (which may be missing), then a
    human and a gpt turn; `query`, `docids` and `positive_docids` are kept, other keys ignored. That the target ranks
    the passages of the prompt is not checked here: `target_ranks` does, and `check_listwise` for a whole file.
    Raises DataError naming file, line and record.
    """
    for line, value in read_json_records(path):
        if isinstance(value, DataError):
            raise value
        yield parse_listwise(value, path=path, line=line)


def parse_listwise(record: Mapping[str, object], *, path: str | Path, line: int) -> ListwiseRecord:
    """One record of a listwise training file. Raises DataError naming `path`, `line` and the record."""
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
    """The system turn, the prompt and the target."""
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
        raise RankLLMError(f"expected the turns human, gpt, with or without system before them; found {turns}")
    for name, value in (("prompt (human turn)", values[-2]), ("target (gpt turn)", values[-1])):
        if not value.strip():
            raise RankLLMError(f"the {name} is empty")
    return values[0] if len(values) == 3 else None, values[-2], values[-1]


def read_pointwise(path: str | Path) -> Iterator[PointwiseRecord]:
    """Yield the records of a pointwise training file: JSON Lines or an array, plain or compressed.

    A record is `{"query_id", "query", "positive_passages": [...], "negative_passages": [...]}` with passages
    `{"docid", "title", "text"}`, where the title may be missing and a `teacher_score` may be given; or, with teacher
    scores, `{"query_id", "query", "passages": [{"title", "text"}], "scores": [...]}` with the positive first. A
    passage without a docid is called `QID#0`, `QID#1`, ... as Tevatron does. Either all passages of a record have a
    teacher score or none has.
    Raises DataError naming file, line and query.
    """
    for line, value in read_json_records(path):
        if isinstance(value, DataError):
            raise value
        yield parse_pointwise(value, path=path, line=line)


def parse_pointwise(record: Mapping[str, object], *, path: str | Path, line: int) -> PointwiseRecord:
    """One record of a pointwise training file. Raises DataError naming `path`, `line` and the query."""
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
                    f"expected a teacher score for all {len(scores)} passages or none, {n_missing} lack it"
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
        raise RankLLMError("positive_passages is empty; give it a passage, or leave the record out")
    return positives, negatives


def _scored_list(record: Mapping[str, object], qid: str) -> tuple[_Passages, _Passages]:
    entries = as_array(record["passages"], what="passages")
    scores = as_array(required(record, ("scores",), what="record")[1], what="scores")
    if not entries or len(entries) != len(scores):
        raise RankLLMError(f"expected as many scores as passages, found {len(scores)} and {len(entries)}")
    passages = tuple(
        _passage(entry, what=f"passages, passage {number + 1}", docid=f"{qid}#{number}", score=score)
        for number, (entry, score) in enumerate(zip(entries, scores, strict=True))
    )
    return passages[:1], passages[1:]


def _passage(entry: object, *, what: str, docid: str, score: object = None) -> TrainingPassage:
    """docid: the name of a passage that has none. score: the teacher's, where it does not stand in the passage."""
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

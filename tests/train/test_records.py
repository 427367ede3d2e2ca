"""Training records: what is accepted, and what is rejected with file, line and name."""

from __future__ import annotations

import gzip
import json
import lzma

import pytest

from rankllm_core.errors import DataError
from rankllm_train.data.records import TrainingPassage, read_listwise, read_pointwise

TURNS = [
    {"from": "system", "value": "You are RankLLM."},
    {"from": "human", "value": "Rank.\n[A] one\n[B] two\n"},
    {"from": "gpt", "value": "[B] > [A]"},
]


def write_lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_a_record_with_a_system_turn_is_read(tmp_path):
    """The published RankZephyr data is an array in a .json file."""
    path = tmp_path / "train.json"
    path.write_text(json.dumps([{"id": "x_1", "conversations": TURNS}]), encoding="utf-8")
    (record,) = read_listwise(path)
    assert (record.id, record.line, record.path) == ("x_1", 1, str(path))
    assert (record.system, record.prompt, record.target) == tuple(turn["value"] for turn in TURNS)
    assert (record.query, record.docids) == (None, ())


@pytest.mark.parametrize(("name", "opener"), [("a.jsonl", open), ("a.jsonl.gz", gzip.open), ("a.jsonl.xz", lzma.open)])
def test_a_record_without_a_system_turn_is_read(tmp_path, name, opener):
    """listwise_dl20 has one record per line, optionally compressed, with query and docids, which may repeat or be
    unknown.
    """
    record = {"id": 7, "retriever": "BM25", "query": "q", "docids": ["d1", 2, "d1", None], "conversations": TURNS[1:]}
    path = tmp_path / name
    with opener(path, "wt", encoding="utf-8") as stream:
        stream.write("\n" + json.dumps(record) + "\n")
    (read,) = read_listwise(path)
    assert (read.id, read.line, read.system, read.query) == ("7", 2, None, "q")
    assert read.docids == ("d1", "2", "d1", None)
    assert read.prompt == TURNS[1]["value"]


def test_a_record_without_an_id_is_called_by_its_line(tmp_path):
    """Errors need a name for the record."""
    path = write_lines(tmp_path / "a.jsonl", {"conversations": TURNS}, {"conversations": TURNS})
    assert [record.id for record in read_listwise(path)] == ["line 1", "line 2"]


def test_other_names_of_the_roles_are_read(tmp_path):
    """The role names user and assistant of chat data are accepted."""
    turns = [{"from": "user", "value": "p"}, {"from": "assistant", "value": "[1]"}]
    (record,) = read_listwise(write_lines(tmp_path / "a.jsonl", {"id": "x", "conversations": turns}))
    assert (record.prompt, record.target) == ("p", "[1]")


@pytest.mark.parametrize(
    ("conversations", "message"),
    [
        ([], "expected the turns human and gpt, optionally after a system turn; found none"),
        (TURNS[:2], "found system, human"),
        (TURNS[1:2], "found human"),
        ([TURNS[2], TURNS[1]], "found gpt, human"),
        ([*TURNS, TURNS[1]], "found system, human, gpt, human"),
        ([*TURNS[:2], {"from": "tool", "value": "x"}], "turn 3: from: expected 'system', 'human' or 'gpt', found the"),
        ([TURNS[1], {"from": "gpt"}], "turn 2 .gpt.: expected the key 'value', found 'from'"),
        ([TURNS[1], {"from": "gpt", "value": None}], "turn 2 .gpt.: value: expected a string, found null"),
        ([{"from": "human", "value": " \n"}, TURNS[2]], r"the prompt \(human turn\) is empty"),
        ([TURNS[1], {"from": "gpt", "value": ""}], r"the target \(gpt turn\) is empty"),
        ("text", "conversations: expected an array, found the string 'text'"),
        ([None], "turn 1: expected an object, found null"),
    ],
)
def test_turns_that_cannot_be_learnt_from_are_named(tmp_path, conversations, message):
    """The error gives file, line, record, what was found and what was expected."""
    good = {"id": "good", "conversations": TURNS}
    path = write_lines(tmp_path / "a.jsonl", good, {"id": "bad", "conversations": conversations})
    with pytest.raises(DataError, match=rf"a\.jsonl:2: record 'bad': .*{message}"):
        list(read_listwise(path))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"id": "x"}, "a.jsonl:1: record 'x': record: expected the key 'conversations', found 'id'"),
        ({"id": None, "conversations": TURNS}, "a.jsonl:1: id: expected a non-empty string or an integer"),
        ({"id": "x", "conversations": TURNS, "docids": "d"}, "a.jsonl:1: record 'x': docids: expected an array"),
        ({"id": "x", "conversations": TURNS, "query": 3}, "a.jsonl:1: record 'x': query: expected a string"),
    ],
)
def test_fields_of_other_types_are_named(tmp_path, record, message):
    """The error is not a KeyError or TypeError."""
    with pytest.raises(DataError) as error:
        list(read_listwise(write_lines(tmp_path / "a.jsonl", record)))
    assert message in str(error.value)


def test_records_are_read_one_at_a_time(tmp_path):
    """The first record is returned although the second is invalid."""
    records = read_listwise(write_lines(tmp_path / "a.jsonl", {"id": "x", "conversations": TURNS}, {"id": "y"}))
    assert next(records).id == "x"
    with pytest.raises(DataError, match=r"a\.jsonl:2: record 'y'"):
        next(records)


GROUP = {
    "query_id": 12,
    "query": "what is llama?",
    "answers": [],
    "positive_passages": [{"docid": "p", "title": "Llama", "text": "A camelid."}],
    "negative_passages": [{"docid": 3, "text": "Trains."}, {"title": None, "text": ""}],
}


def test_a_tevatron_record_is_read(tmp_path):
    """Ids may be numbers, titles and docids may be missing or null, and other keys are ignored."""
    (record,) = read_pointwise(write_lines(tmp_path / "a.jsonl", GROUP))
    assert (record.qid, record.query, record.line, record.has_teacher) == ("12", "what is llama?", 1, False)
    assert record.positives == (TrainingPassage(docid="p", title="Llama", text="A camelid."),)
    assert record.negatives == (
        TrainingPassage(docid="3", title="", text="Trains."),
        TrainingPassage(docid="12#2", title="", text=""),
    )


def test_a_record_may_have_no_negative(tmp_path):
    """Whether negatives are needed depends on the group size, so sampling reports it."""
    (record,) = read_pointwise(write_lines(tmp_path / "a.jsonl", GROUP | {"negative_passages": []}))
    assert record.negatives == ()


def test_teacher_scores_are_read_from_the_passages(tmp_path):
    """Each passage has its own score."""
    passages = {
        "positive_passages": [{"docid": "p", "text": "a", "teacher_score": 2}],
        "negative_passages": [{"docid": "n", "text": "b", "teacher_score": -0.5}],
    }
    (record,) = read_pointwise(write_lines(tmp_path / "a.jsonl", GROUP | passages))
    assert record.has_teacher
    assert [passage.teacher_score for passage in record.positives + record.negatives] == [2.0, -0.5]


def test_a_distillation_record_is_read(tmp_path):
    """Tevatron's layout: the positive first, one score per passage, no docids."""
    passages = [{"title": "t", "text": "a"}, {"title": "", "text": "b"}, {"text": "c"}]
    scored = {"query_id": "q7", "query": "q", "passages": passages, "scores": [3.5, 0, -2]}
    (record,) = read_pointwise(write_lines(tmp_path / "a.jsonl", scored))
    assert [(p.docid, p.title, p.text, p.teacher_score) for p in record.positives + record.negatives] == [
        ("q7#0", "t", "a", 3.5),
        ("q7#1", "", "b", 0.0),
        ("q7#2", "", "c", -2.0),
    ]
    assert len(record.positives) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positive_passages": []}, "query '12': positive_passages is empty"),
        ({"query": None}, "query '12': query: expected a string, found null"),
        ({"query_id": ""}, "query_id: expected a non-empty string or an integer"),
        ({"negative_passages": None}, "query '12': negative_passages: expected an array, found null"),
        ({"negative_passages": [{"docid": "n"}]}, "negative_passages, passage 1: passage: expected the key 'text'"),
        ({"positive_passages": [{"docid": "n", "text": 3}]}, "positive_passages, passage 1: text: expected a string"),
        ({"positive_passages": ["text"]}, "positive_passages, passage 1: expected an object"),
        (
            {"positive_passages": [{"docid": "p", "text": "t", "teacher_score": 1.0}]},
            "expected a teacher score for all 3 passages or for none, but 2 have none",
        ),
    ],
)
def test_a_bad_group_is_named(tmp_path, change, message):
    """The error gives file, line, query, what was found and what was expected."""
    with pytest.raises(DataError) as error:
        list(read_pointwise(write_lines(tmp_path / "a.jsonl", GROUP, GROUP | change)))
    assert "a.jsonl:2: " in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0], "expected one score per passage, found 1 scores and 2 passages"),
        ([1.0, None], "expected a teacher score for all 2 passages or for none, but 1 have none"),
        ([1.0, "high"], "passages, passage 2: score: expected a finite number, found the string 'high'"),
        ([1.0, float("nan")], "passages, passage 2: score: expected a finite number, found NaN"),
        (None, "scores: expected an array, found null"),
    ],
)
def test_bad_teacher_scores_are_named(tmp_path, scores, message):
    """One NaN from the teacher would make the loss of the whole batch NaN."""
    record = {"query_id": "q", "query": "q", "passages": [{"text": "a"}, {"text": "b"}], "scores": scores}
    with pytest.raises(DataError) as error:
        list(read_pointwise(write_lines(tmp_path / "a.jsonl", record)))
    assert "a.jsonl:1: query 'q': " in str(error.value)
    assert message in str(error.value)


def test_a_record_without_a_query_id_is_named_by_its_place(tmp_path):
    """There is no query ID to name it by."""
    with pytest.raises(DataError, match=r"a\.jsonl:1: record: expected the key 'query_id', found 'id'"):
        list(read_pointwise(write_lines(tmp_path / "a.jsonl", {"id": 1})))


def test_errors_found_later_name_the_place_too(tmp_path):
    """A record keeps its location for errors found during training."""
    (record,) = read_pointwise(write_lines(tmp_path / "a.jsonl", GROUP))
    assert str(record.error("too long")).endswith("a.jsonl:1: query '12': too long")
    (listwise,) = read_listwise(write_lines(tmp_path / "b.jsonl", {"id": "x", "conversations": TURNS}))
    assert str(listwise.error("too long")).endswith("b.jsonl:1: record 'x': too long")

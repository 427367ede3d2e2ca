"""`--bad-records skip`: every reason is counted and the first reported, in training and dev data of both kinds."""

from __future__ import annotations

import json
import re

import pytest

pytest.importorskip("torch")

from training_fakes import listwise_record, pointwise_record, write_records

from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.prompts.template import load_template
from rankllm_core.types import identifiers
from rankllm_train.data.bad_records import BadRecords
from rankllm_train.methods.registry import prepare, prepare_dev
from rankllm_train.recipe.recipe import Recipe


def recipe(path, *, method, **changes):
    base = {"data.train": str(path), "data.bad_records": "skip", "prompt.context_tokens": 1024}
    base |= {"data.group_size": 4} if method == "pointwise" else {}
    return Recipe(method=method).changed(base | changes)


def lines_of(path, *lines):
    """Write a file of records and of invalid lines."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return path


def listwise(number=1, *, turn=None, **changes):
    """Return a record. turn: (index, replacement text)."""
    record = listwise_record(number) | changes
    if turn:
        record["conversations"][turn[0]]["value"] = turn[1]
    return record


def prompt_of(*texts):
    *_, human = load_template("rank_zephyr_alpha").render("question 1", texts, labels=identifiers("alpha", len(texts)))
    return human.content


def named(*passages):
    return [{"docid": docid, "title": "", "text": text} for docid, text in passages]


POSITIVE = ("p1", "this is word1 indeed")
BAD_POINTWISE = {
    "no positives": pointwise_record(1) | {"positive_passages": []},
    "no negatives": pointwise_record(1) | {"negative_passages": []},
    "null text": pointwise_record(1) | {"negative_passages": named(("n", None))},
    "no query": {"query_id": "q1", "positive_passages": [], "negative_passages": []},
    "empty id": pointwise_record(1) | {"query_id": ""},
    "torn": '{"query_id": "q1", "query": "wo',
    "Latin-1": '{"query_id": "q1", "query": "caf\udce9"}',
    "zeros": "\x00" * 4096,
    "no object": "[1, 2]",
    "not a number": "NaN",
    "deep": "[" * 100_000,
    "other kind": listwise_record(1),
    "positive is negative": pointwise_record(1) | {"negative_passages": named(("n", "other"), ("p1", "another"))},
    "same text": pointwise_record(1) | {"negative_passages": named(("n", "other"), ("m", POSITIVE[1]))},
    "blank positive": pointwise_record(1) | {"positive_passages": named(("p1", " \u200b\ufeff\n"))},
    "second positive blank": pointwise_record(1) | {"positive_passages": named(POSITIVE, ("p2", ""))},
    "blank negatives": pointwise_record(1) | {"negative_passages": named(("n", ""), ("m", "\u200d\ufe0f"))},
    "one text": pointwise_record(1) | {"negative_passages": named(("n", POSITIVE[1]), ("m", POSITIVE[1]))},
}
BAD_LISTWISE = {
    "null turn": listwise(turn=(1, None)),
    "empty target": listwise(turn=(2, "")),
    "blank prompt": listwise(turn=(1, " ")),
    "empty id": listwise(id=""),
    "null id": listwise(id=None),
    "no conversations": {"id": "r1"},
    "null conversations": listwise(conversations=None),
    "no turns": listwise(conversations=[]),
    "torn": '{"id": "r1", "conversations": [{"fr',
    "Latin-1": '{"id": "caf\udce9"}',
    "cut in a character": '{"id": "\udce6\udc95',
    "no object": "null",
    "repeated": listwise(turn=(2, "[A] > [A] > [B]")),
    "no passage": listwise(turn=(1, "Rank these.")),
    "docids": listwise(docids=["a"]),
    "one text": listwise(turn=(1, prompt_of("cats sleep", "cats sleep", "cats sleep"))),
    "one text but for case": listwise(turn=(1, prompt_of("cats sleep", "Cats sleep", "CATS sleep"))),
    "one passage": listwise_record(1, n=1),
    "27 in letters": listwise_record(1, n=27, kind="numeric"),
    "other kind": pointwise_record(1),
}


def prepared(path, tokenizer, *, method, **changes):
    changes = ({"data.identifiers": "alpha", "objective.name": "ranking"} if method == "listwise" else {}) | changes
    return prepare(recipe(path, method=method, **changes), tokenizer)


CASES = [("pointwise", name) for name in BAD_POINTWISE] + [("listwise", name) for name in BAD_LISTWISE]


@pytest.mark.parametrize(("method", "name"), CASES)
def test_a_bad_record_is_left_out_and_told_of(tmp_path, smollm2_tokenizer, method, name):
    """One note with file and line; without skip, the same text is the error."""
    good = listwise_record if method == "listwise" else pointwise_record
    bad = (BAD_LISTWISE if method == "listwise" else BAD_POINTWISE)[name]
    path = lines_of(tmp_path / "d.jsonl", good(0), bad, good(2))
    data = prepared(path, smollm2_tokenizer, method=method)
    assert len(data.dataset) == 2
    (note,) = data.notes
    assert re.match(rf"skipped 1 of \d+ records \(\d+ left\); the first: {re.escape(str(path))}:2: ", note)
    assert note.startswith("skipped 1 of 3 records (2 left); ")
    with pytest.raises(DataError) as caught:
        prepared(path, smollm2_tokenizer, method=method, **{"data.bad_records": "error"})
    assert str(caught.value) in note


@pytest.mark.parametrize("method", ["listwise", "pointwise"])
def test_all_of_them_are_counted_and_the_first_is_the_first(tmp_path, smollm2_tokenizer, method):
    """This also applies to another dev file; the order is that of the file, whichever check finds a record."""
    bad = list((BAD_LISTWISE if method == "listwise" else BAD_POINTWISE).values())
    good = listwise_record if method == "listwise" else pointwise_record
    train = lines_of(tmp_path / "t.jsonl", *[good(i) for i in range(6)], *reversed(bad))
    dev = lines_of(tmp_path / "v.jsonl", *bad, good(9))
    changes = {"data.eval": str(dev)}
    data = prepared(train, smollm2_tokenizer, method=method, **changes)
    (note,) = data.notes
    assert re.match(rf"skipped {len(bad)} of \d+ records \(\d+ left\); the first: {re.escape(str(train))}:7: ", note)
    assert note.startswith(f"skipped {len(bad)} of {6 + len(bad)} records (6 left); ")
    listed = {"data.identifiers": "alpha", "objective.name": "ranking"} if method == "listwise" else {}
    dev_data = prepare_dev(recipe(train, method=method, **changes, **listed), smollm2_tokenizer, data)
    (note,) = dev_data.notes
    assert re.match(rf"skipped {len(bad)} of \d+ records \(\d+ left\); the first: {re.escape(str(dev))}:1: ", note)
    assert len(dev_data.dataset) == 1


@pytest.mark.parametrize("method", ["listwise", "pointwise"])
def test_a_file_in_which_nothing_is_left_is_an_error(tmp_path, smollm2_tokenizer, method):
    """The error names the file, the number of skipped records and the first reason; an empty file has no reason."""
    bad = list((BAD_LISTWISE if method == "listwise" else BAD_POINTWISE).values())
    path = lines_of(tmp_path / "d.jsonl", *bad)
    with pytest.raises(RankLLMError) as caught:
        prepared(path, smollm2_tokenizer, method=method)
    start = f"{path}: contains no records to train on; skipped {len(bad)}, the first: {path}:1: "
    assert str(caught.value).startswith(start)
    empty = lines_of(tmp_path / "e.jsonl")
    with pytest.raises(RankLLMError, match=r"e\.jsonl: contains no records to train on$"):
        prepared(empty, smollm2_tokenizer, method=method)


def test_what_is_left_out_is_not_compared_with_the_template(tmp_path, smollm2_tokenizer):
    """Nor checked for its identifiers: bad and overlong records with other wording, and numbers, come first."""
    strange = listwise(5, turn=(2, "[A] > [A]"))
    strange["conversations"][1]["value"] = "Sort:\n[A] one\n[B] two"
    long = listwise_record(8, n=20, kind="numeric", system="Another system turn")
    wrong = listwise_record(7, kind="numeric") | {"docids": ["x"]}
    path = write_records(tmp_path / "d.jsonl", [strange, long, wrong, listwise_record(0)])
    changes = {"data.overlong": "skip", "prompt.context_tokens": 500, "data.identifiers": "keep"}
    data = prepared(path, smollm2_tokenizer, method="listwise", **changes)
    (note,) = data.notes
    assert note.startswith("skipped 3 of ")
    assert data.card.identifiers == "alpha"
    assert data.card.template.name == "rank_zephyr_alpha"


def test_a_kept_record_in_other_words_is_told_of(tmp_path, smollm2_tokenizer):
    """After a bad record."""
    other = listwise_record(0, system="Another system turn")
    path = lines_of(tmp_path / "d.jsonl", "{torn", other)
    notes = prepared(path, smollm2_tokenizer, method="listwise").notes
    assert [note.split(":")[0] for note in notes] == ["Warning", "skipped 1 of 2 records (1 left); the first"]


def test_lists_of_one_passage_are_for_generation(tmp_path, smollm2_tokenizer):
    """They teach an answer but no order."""
    path = write_records(tmp_path / "d.jsonl", [listwise_record(0), listwise_record(1, n=1)])
    kept = {"data.bad_records": "error"}
    data = prepared(path, smollm2_tokenizer, method="listwise", **kept, **{"objective.name": "generation"})
    assert len(data.dataset) == 2
    for objective in ("ranking", "combined"):
        with pytest.raises(DataError, match=rf"d\.jsonl:2: record 'r1': a single passage .*{objective} to learn"):
            prepared(path, smollm2_tokenizer, method="listwise", **kept, **{"objective.name": objective})


def test_copies_that_a_title_or_a_sign_tells_apart_are_kept(tmp_path, smollm2_tokenizer):
    """They are different passages; a copy that differs only in case and whitespace is not."""
    positive = {"docid": "p", "title": "T", "text": "a == b"}
    others = [positive | {"docid": "n", "text": "a != b"}, positive | {"docid": "m", "title": "U"}]
    record = pointwise_record(1) | {"positive_passages": [positive], "negative_passages": others}
    copy = record | {"query_id": "q2", "negative_passages": [*others, positive | {"docid": "c", "text": "A ==  b."}]}
    path = write_records(tmp_path / "d.jsonl", [record, copy])
    data = prepared(path, smollm2_tokenizer, method="pointwise")
    assert [kept.qid for kept in data.dataset.records] == ["q1"]
    assert "the negative passage 'c' has the same text as the positive 'p'" in data.notes[-1]


def test_the_limit_of_records_counts_bad_ones(tmp_path, smollm2_tokenizer):
    """Of the first four lines, two are valid."""
    good, bad = pointwise_record(0), BAD_POINTWISE["null text"]
    path = lines_of(tmp_path / "d.jsonl", good, bad, bad, good, good)
    data = prepared(path, smollm2_tokenizer, method="pointwise", **{"data.max_records": 4})
    assert data.notes[0].startswith("skipped 2 of 4 records (2 left); ")


def test_reasons_are_in_the_order_of_the_file():
    """Whichever check reports first; an unknown policy is rejected."""
    bad = BadRecords("skip", source="d")
    for line in (7, 2, 5):
        bad.refuse(DataError("reason", path="d", line=line))
    assert bad.reasons == ("d:2: reason", "d:5: reason", "d:7: reason")
    assert bad.notes(n_kept=1) == ("skipped 3 of 4 records (1 left); the first: d:2: reason",)
    assert BadRecords("skip").notes(n_kept=3) == ()
    with pytest.raises(RankLLMError, match="bad_records: expected one of"):
        BadRecords("ignore")

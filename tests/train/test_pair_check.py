"""Records whose passages have identical prompts are found when they are read, since their gradient would be 0."""

from __future__ import annotations

import copy

import pytest

pytest.importorskip("torch")

from permutation_fakes import letter_tokenizer

from rankllm_core.errors import ContractError, DataError, RankLLMError
from rankllm_core.prompts.pairs import PairEncoder, PairLimits
from rankllm_core.prompts.template import load_template
from rankllm_train.data.records import PointwiseRecord, TrainingPassage
from rankllm_train.encoding.pointwise import GroupRule, pointwise_dataset
from rankllm_train.encoding.prompt_checks import check_pairs

LONG = "argumentN is that cats sleep " * 40
CATS = ("dogs bark", "cats sleep all day", "planes fly")


def record(query, texts=CATS, *, line=1):
    """A record whose first text is the positive."""
    passages = tuple(TrainingPassage(docid=str(i), title="", text=text) for i, text in enumerate(texts))
    return PointwiseRecord(
        path="p.jsonl", line=line, qid="q", query=query, positives=passages[:1], negatives=passages[1:]
    )


def encoder(template="rankllama-v2", *, q=100, p=100, tokenizer=None):
    """An encoder with one token per letter."""
    limits = PairLimits(query_tokens=q, passage_tokens=p)
    return PairEncoder(tokenizer or letter_tokenizer(), load_template(template), limits=limits)


def dataset(records, made, **options):
    """A dataset with groups of three passages."""
    return pointwise_dataset(records, made, GroupRule(group_size=3), **options)


def test_a_query_that_takes_all_the_room_is_an_error_or_left_out():
    """Without the check, the loss would stay at ln 3 with gradient 0."""
    records = [record("cats"), record(LONG, line=2)]
    with pytest.raises(
        DataError, match=r"p.jsonl:2: query 'q': the prompts do not contain the passages: the query fills"
    ):
        dataset(records, encoder())
    kept = dataset(records, encoder(), bad_records="skip")
    assert len(kept) == 1
    assert "the prompts do not contain the passages" in kept.skipped[0]
    with pytest.raises(
        RankLLMError, match=r"no records to train on; skipped 1, the first: .* do not contain the passag"
    ):
        dataset(records[1:], encoder(), bad_records="skip")


@pytest.mark.parametrize("n", range(60, 110))
def test_the_room_is_known_to_the_token(n):
    """For each query length around the limit, the room is 0 exactly if the passage makes no difference."""
    made, query = encoder(q=50, p=50), "x" * n
    shown = {made.encode(query, title="", text=text) for text in CATS}
    assert (made.passage_room(query) == 0) == (len(shown) == 1)


@pytest.mark.parametrize(("template", "p"), [("rankllama-v2", 200), ("yes_no", 100)])
def test_records_in_order_have_no_findings(template, p):
    """Length alone is not a problem."""
    tokenizer = letter_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    made = encoder(template, p=p, tokenizer=tokenizer)
    for texts in (CATS, ("a", "b", "c"), ("a" * 999, "b" * 999, "c" * 999), ("same", "same", "same"), ("", "", "x")):
        found = check_pairs(record("cats", texts), made)
        assert (found.problem, found.n_alike) == ("", 0), texts
        if all(texts) and len(set(texts)) > 1:  # else the record is bad for another reason
            assert len(dataset([record("cats", texts)], made)) == 1


def test_passages_that_differ_behind_the_cut_are_counted_and_all_of_them_are_an_error():
    """A group with only one distinct prompt has no gradient; a group with two identical prompts has some."""
    made = encoder()
    some = record("cats", ("a" * 300 + "x", "a" * 300 + "y", "b"))
    data = dataset([some, record("cats")], made)
    assert (len(data), len(data.alike)) == (2, 1)
    assert data.alike[0] == "p.jsonl:1: query 'q': 1 passages have the same prompt as a different passage"
    every = record("cats", tuple("a" * 300 + letter for letter in "xyz"))
    with pytest.raises(DataError, match=r"its 3 passages differ, but share one prompt, so the gradient is 0"):
        dataset([every], made)


def test_a_chat_template_that_drops_the_passage_is_an_error_whatever_is_skipped():
    """No record could be used for training."""
    tokenizer = copy.deepcopy(letter_tokenizer())
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{% endfor %}"
    made = encoder("yes_no", tokenizer=tokenizer)
    for bad_records in ("error", "skip"):
        with pytest.raises(
            ContractError, match=r"p.jsonl:1: query 'q': the prompts do not contain the passages; check"
        ):
            dataset([record("cats")], made, bad_records=bad_records)


def test_a_record_in_order_costs_no_tokens():
    """Only passages with a common beginning are tokenized, and the first record, to check that the template shows
    passages at all.
    """
    made = encoder()
    calls = []
    encode = made.encode
    made.encode = lambda *args, **options: calls.append(args) or encode(*args, **options)
    for n in range(50):
        check_pairs(record("cats", tuple(f"{letter} of {n}" for letter in "abcdefgh")), made)
    assert calls == []

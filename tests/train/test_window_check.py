"""Listwise records whose prompt shows no passage are detected when they are encoded."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from permutation_fakes import letter_tokenizer
from training_fakes import listwise_record

from rankllm_core.errors import DataError, RankLLMError
from rankllm_core.prompts.template import load_template
from rankllm_train.data.records import parse_listwise
from rankllm_train.encoding.listwise import encode_listwise
from rankllm_train.encoding.listwise_encoder import ListwiseEncoder

SHOWING = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
DROPPING = "{% for m in messages %}{{ m.role }}\n{% endfor %}"
DROPPING_LATER = "{% for m in messages %}{{ m.role if 'question 1' in m.content else m.content }}\n{% endfor %}"
"""Drops the query and the passages of questions 1, 10 and 11."""


def record(number, **options):
    """A record of three passages with letters as identifiers."""
    return parse_listwise(listwise_record(number, **options), path="d.jsonl", line=number + 1)


def encode(records, chat_template, **options):
    """Encode the records with one token per letter."""
    tokenizer = letter_tokenizer()
    tokenizer.chat_template = chat_template
    encoder = ListwiseEncoder(tokenizer, objective="generation")
    return encode_listwise(records, encoder, objective="generation", **({"context_tokens": 5000} | options))


def test_a_chat_template_that_drops_the_passages_is_an_error_or_leaves_nothing():
    """All lists would be trained on the same token ids."""
    records = [record(n) for n in range(3)]
    with pytest.raises(DataError, match=r"d.jsonl:1: record 'r0': the prompt does not contain the passages; check"):
        encode(records, DROPPING)
    with pytest.raises(RankLLMError, match=r"skipped 3, the first: .* does not contain the passages"):
        encode(records, DROPPING, bad_records="skip")


def test_records_whose_passages_are_dropped_later_are_found():
    """They are found because they share token ids; the first of them looks like a valid record."""
    records = [record(n) for n in (0, 1, 10, 11, 2)]
    found = encode(records, DROPPING_LATER, bad_records="skip")
    assert len(found.skipped) == 2
    assert all("does not contain the passages" in line for line in found.skipped)


def test_records_in_order_pass_and_so_do_copies():
    """Two identical records are not an error of the prompt."""
    records = [record(0), record(1), record(0), record(1)]
    found = encode(records, SHOWING)
    assert (len(found), found.skipped, found.n_alike) == (4, (), 0)


def test_passages_that_are_cut_to_the_same_words_are_counted():
    """Each passage is truncated to one word, which is `same` for all."""
    template = load_template("rank_zephyr_alpha")
    texts = [f"same words {n} " + "and more of it " * 20 for n in range(3)]
    *_, human = template.render("q", texts, labels=("A", "B", "C"))
    turns = [{"from": "human", "value": human.content}, {"from": "gpt", "value": "[B] > [A] > [C]"}]
    long = parse_listwise({"id": "r", "conversations": turns}, path="d.jsonl", line=1)
    whole = encode([long], SHOWING)
    assert whole.n_alike == 0
    room = len(whole.examples[0]) - sum(map(len, texts)) + 3 * len("same words")
    cut = encode([long], SHOWING, context_tokens=room, overlong="truncate")
    assert (cut.n_truncated, cut.n_alike) == (1, 1)

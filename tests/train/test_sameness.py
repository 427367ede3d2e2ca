"""Which texts count as the same question or passage when judgements depend on it; symbols make texts different."""

from __future__ import annotations

import unicodedata

import pytest
from collections_on_disk import Collection

from rankllm_train.data.sameness import exact_form, normalised
from rankllm_train.preparation.judgements import JudgedSources, read_judgements
from rankllm_train.preparation.mine import MineRule, mine


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sort a list in C++", "sort a list in C#"),
        ("sort a list in C", "sort a list in C++"),
        ("a == b", "a != b"),
        ("a = b", "a \u2260 b"),
        ("B+ tree", "B-tree"),
        ("it costs $100", "it costs \u20ac100"),
        ("it costs $100", "it costs 100"),
        ("-5", "5"),
        ("\u22125 degrees", "5 degrees"),
        ("\u00acp", "p"),
        ("a & b", "a | b"),
        ("a && b", "a & b"),
        ("x\u00b2", "x2"),
        ("H\u2082O", "H2O"),
        ("10\u2075", "105"),
        ("\u00bd", "12"),
        ("\u2460", "1"),
        ("\u211d", "R"),
        (".NET", "net"),
        ("what is .NET?", "what is net?"),
        ("#1", "1"),
        ("@home", "home"),
        ("/usr", "usr"),
        ("~x", "x"),
        ("_a", "a"),
        ("f'", "f"),
        ("5%", "5"),
        ("5!", "5"),
        ("n!", "n"),
        ("std::", "std"),
        ("a << b", "a >> b"),
        ("x \u2264 5", "x \u2265 5"),
        ("a \u00d7 b", "a \u00f7 b"),
        ("r\u00e9sum\u00e9", "resume"),
        ("good \U0001f600", "good \U0001f621"),
        ("good \U0001f600", "good"),
        ("good :)", "good :("),
        ("what is ?.", "what is ?:"),
        ("what is !", "what is ?"),
        ("1.5", "15"),
        ("3,000", "3000"),
        ("\u7ea2\u3001\u767d", "\u7ea2\u767d"),
        ("\u300c\u7ea2\u300d", "\u7ea2"),
        ("a...", "a"),
    ],
)
def test_symbols_tell_texts_apart(one, other):
    """Also within a longer text; most such pairs count as the same for a split, which is harmless."""
    assert exact_form(one) != exact_form(other)
    assert exact_form(f"how does {one} work") != exact_form(f"how does {other} work")
    assert exact_form(f"this is {one}") != exact_form(f"this is {other}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Text of P.", "text  of\tp"),
        ("TEXT, of c", "text of c"),
        ("What is B?", "what is: b"),
        ("The best answer!", "the best answer"),
        ("What is C++?", "what is c++"),
        ("\uff23\uff0b\uff0b", "c++"),
        ("\u4f60\u597d\u3002", "\u4f60\u597d"),
        ("caf\u00e9", "cafe\u0301"),
        ("Stra\u00dfe", "STRASSE"),
        ("5 \u00b5m", "5 \u03bcm"),
        ("don\u2019t", "don't"),
        ("\u201cso\u201d", '"so"'),
        ("1990\u20131995", "1990-1995"),
        ("so\u00adnar\u200b", "sonar"),
        ("a\u00a0b", "a b"),
        ("\u2764\ufe0f", "\u2764"),
    ],
)
def test_case_blanks_typography_and_sentence_ends_do_not_count(one, other):
    """They change how a text looks, not what it says."""
    assert exact_form(one) == exact_form(other)


def test_the_exact_form_of_a_form_is_itself():
    """Normalization is idempotent for any text; texts with the same exact form are also the same for a split."""
    texts = ["A, B: c; d!", "5!", "?!", "x \u00b2.", "\ufb01x ,", "a .", "", " ", "\uff61", "\ud800?"]
    for text in texts:
        assert exact_form(exact_form(text)) == exact_form(text)
        assert normalised(exact_form(text)) == normalised(text)


def test_each_symbol_of_unicode_counts():
    """Every symbol (category S) counts unless it is a variant of another symbol; none disappears."""
    for code in range(0x2FFFF):
        character = chr(code)
        if unicodedata.category(character)[0] == "S" and not unicodedata.decomposition(character):
            assert exact_form(f"a {character} b") != exact_form("a b"), hex(code)
            assert exact_form(f"a{character}") != exact_form("a"), hex(code)


def test_questions_that_differ_in_a_symbol_share_no_judgements(tmp_path):
    """An answer for C++ is not one for C#; those that differ only in case and punctuation share their judgements."""
    files = Collection(tmp_path)
    queries = {
        "cpp": "How do I sort a list in C++?",
        "cs": "How do I sort a list in C#?",
        "again": "how do I sort a list in c++",
    }
    qrels = {"cpp": {"std": 1}, "cs": {"linq": 1}, "again": {"old": 1}}
    found = read_judgements(files.queries(queries), files.qrels(qrels), min_relevance=1)
    assert found.question_grades == {
        "cpp": {"std": 1, "old": 1},
        "cs": {"linq": 1},
        "again": {"std": 1, "old": 1},
    }


def test_passages_that_differ_in_a_symbol_are_no_copies(tmp_path):
    """With the positive `a == b`, the passage `a != b` and two others are hard negatives; a true copy is not."""
    files = Collection(tmp_path)
    sources = JudgedSources(
        run=files.run({"q": {"p": 9, "ne": 8, "copy": 7, "plus": 6, "minus": 5}}),
        qrels=files.qrels({"q": {"p": 1}}),
        queries=files.queries({"q": "equality"}),
        corpus=files.corpus({"p": "a == b", "ne": "a != b", "copy": "A == b.", "plus": "B+ tree", "minus": "B-tree"}),
    )
    mine(sources, MineRule(), output=files.path("out.jsonl"))
    (record,) = files.read("out.jsonl")
    assert [passage["docid"] for passage in record["negative_passages"]] == ["ne", "plus", "minus"]

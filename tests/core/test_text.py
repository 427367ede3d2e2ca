"""How a stored passage becomes the text in a prompt."""

from __future__ import annotations

import pytest

from rankllm_core.errors import RankLLMError
from rankllm_core.text import defuse_identifiers, first_words, passage_text, title_and_text, words_in


@pytest.mark.parametrize("field", ["text", "segment", "contents", "content", "body", "passage"])
def test_every_field_name_of_the_originals_is_read(field):
    """A passage's text may be stored under any of six names."""
    assert title_and_text({"id": "7", field: "the text"}) == ("", "the text")


def test_the_first_field_in_the_originals_order_counts():
    """If several exist, `text` precedes `segment`, and so on, whatever their order in the file."""
    assert title_and_text({"passage": "p", "body": "b", "segment": "s", "text": "t"}) == ("", "t")
    assert title_and_text({"passage": "p", "body": "b", "content": "c", "contents": "cs"}) == ("", "cs")


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        ({"title": "T", "text": "words"}, "Title: T Content: words"),
        ({"title": "", "text": "  words \n"}, "words"),
        ({"title": None, "text": None}, ""),
        ({"text": 12}, "12"),
        ({"title": "T", "text": ""}, "Title: T Content:"),
        ({"text": "\u201cquoted\u201d L&amp;N na\u00c3\u00afve \uff21"}, '"quoted" L&N na\u00efve A'),
    ],
)
def test_passage_text_is_titled_trimmed_and_repaired(doc, expected):
    """The title precedes the text, surrounding whitespace is removed, ftfy repairs mojibake, entities, quotes and
    widths.
    """
    assert passage_text(doc) == expected


@pytest.mark.parametrize(("doc", "found"), [({"id": "7", "title": "T"}, "'id', 'title'"), ({}, "nothing")])
def test_a_passage_without_text_is_an_error_that_names_what_is_there(doc, found):
    """The message lists the supported field names and those found."""
    with pytest.raises(RankLLMError, match=f"expected one of text, segment, .*; found {found}"):
        title_and_text(doc)


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("a  b\tc\nd", 3, "a b c"),
        ("a b", 300, "a b"),
        ("  a\u00a0b  ", 2, "a b"),
        ("a b", 0, ""),
        ("a b", -5, ""),
        ("", 3, ""),
    ],
)
def test_first_words_are_joined_by_single_blanks(text, n, expected):
    """Any whitespace separates words; a negative number means zero (the originals cut from the end then)."""
    assert first_words(text, n) == expected


@pytest.mark.parametrize(
    ("text", "alpha", "expected"),
    [
        ("see [3] and [12]", False, "see (3) and (12)"),
        ("[2] > [1]", False, "(2) > (1)"),
        ("[A] and [3]", False, "[A] and (3)"),
        ("[A] and [3]", True, "(A) and (3)"),
        ("[b] [AB] [1a] []", True, "[b] [AB] [1a] []"),
        ("[[3]]", True, "[(3)]"),
    ],
)
def test_brackets_of_a_passage_cannot_pose_as_identifiers(text, alpha, expected):
    """`[3]` becomes `(3)`; single capital letters are replaced only if letters are the identifiers."""
    assert defuse_identifiers(text, alpha=alpha) == expected


def test_a_word_of_a_million_letters_is_cut():
    """Words are also limited in characters, far above the length of real words."""
    assert first_words("x" * 1_000_000, 2) == "x" * (32 * 2 + 256)
    assert first_words("incomprehensibilities " * 300, 300) == ("incomprehensibilities " * 300).strip()


@pytest.mark.parametrize(
    "text", ["", "one", "a  b c", "word " * 80, "x" * 256, "x" * 257, "x" * 5000, "\u4e2d" * 999 + " a b", "xy " * 5000]
)
def test_words_in_a_text_are_as_many_as_keep_all_of_it(text):
    """One word fewer would truncate the text."""
    whole = " ".join(text.split())
    assert first_words(text, words_in(text)) == whole
    assert words_in(text) == 0 or first_words(text, words_in(text) - 1) != whole


def test_a_null_field_does_not_hide_the_text():
    """The first non-empty field counts."""
    assert title_and_text({"text": None, "contents": "sky is blue", "title": None}) == ("", "sky is blue")


def test_a_list_is_not_a_text():
    """A value that is not text is an error instead of being formatted by Python."""
    with pytest.raises(RankLLMError, match="contents: expected text, found list"):
        title_and_text({"contents": ["a"]})

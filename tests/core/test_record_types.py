"""Queries, candidates and requests created in Python are validated."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from rankllm_core.errors import RankLLMError
from rankllm_core.types import Candidate, Query, Request

QUERY = Query(qid="q", text="what")
SURROGATE = "d\ud800"


class Word(str):
    """A subclass of str, as in numpy."""

    __slots__ = ()


def candidate(docid="d", score=1.0, **more):
    """A valid candidate except for the given values."""
    return Candidate(docid=docid, score=score, **({"doc": {"text": "x"}} | more))


@pytest.mark.parametrize("docid", [None, 7, True, 1.5, b"d1", ["d"], "", "  ", "\u3000", SURROGATE])
def test_an_id_is_a_string_that_is_not_empty(docid):
    """This holds for queries and candidates."""
    with pytest.raises(RankLLMError, match=r"^docid: "):
        candidate(docid=docid)
    with pytest.raises(RankLLMError, match=r"^qid: "):
        Query(qid=docid, text="x")


def test_an_integer_id_is_told_how_to_be_written():
    """This is the most likely mistake."""
    with pytest.raises(RankLLMError, match=r"docid: expected a string, found int 7; write '7'"):
        candidate(docid=7)


@pytest.mark.parametrize("text", [None, 7, b"what", ["what"], {"text": "what"}])
def test_a_query_is_a_text(text):
    """Bytes are rejected."""
    with pytest.raises(RankLLMError, match=r"query 'q': text: expected a string, found "):
        Query(qid="q", text=text)


@pytest.mark.parametrize(
    "score", [None, "1", True, math.nan, math.inf, -math.inf, 10**400, 1j, [1.0], Fraction(10**400)]
)
def test_a_score_is_a_finite_number(score):
    """NaN cannot be sorted."""
    with pytest.raises(RankLLMError, match=r"docid 'd': score: expected a finite number, found "):
        candidate(score=score)
    if score is not None:
        with pytest.raises(RankLLMError, match=r"docid 'd': model_score: expected a finite number, found "):
            candidate(model_score=score)


@pytest.mark.parametrize("doc", [None, "a text", b"a text", ["a"], 3])
def test_a_doc_is_a_mapping(doc):
    """A string is not a stored passage."""
    with pytest.raises(RankLLMError, match=r"docid 'd': doc: expected a mapping such as"):
        candidate(doc=doc)


def test_other_strings_and_numbers_become_plain_ones():
    """numpy and pandas values are converted, so that files contain plain types."""
    numpy = pytest.importorskip("numpy")
    for word in (Word("d"), numpy.str_("d")):
        made = candidate(docid=word)
        assert (type(made.docid), made.docid) == (str, "d")
        query = Query(qid=word, text=word)
        assert (type(query.qid), type(query.text)) == (str, str)
    for number in (2, numpy.float32(2), numpy.float64(2), numpy.int64(2), Fraction(2)):
        made = candidate(score=number, model_score=number)
        assert (type(made.score), made.score, type(made.model_score)) == (float, 2.0, float)


def test_candidates_may_come_from_any_iterable():
    """Validation used to exhaust generators, which left the request empty."""
    expected = (candidate("a"), candidate("b"))
    for given in (expected, list(expected), (c for c in expected)):
        assert Request(query=QUERY, candidates=given).candidates == expected


@pytest.mark.parametrize("candidates", [None, "ab", b"ab", {"d": 1}, 3, candidate()])
def test_candidates_are_a_sequence(candidates):
    """A string would be a sequence of characters."""
    with pytest.raises(RankLLMError, match=r"query 'q': candidates: expected a sequence of Candidate, found "):
        Request(query=QUERY, candidates=candidates)


@pytest.mark.parametrize("wrong", [None, "d", {"docid": "d"}, ("d", 1.0)])
def test_each_candidate_is_one(wrong):
    """The error gives the position."""
    with pytest.raises(RankLLMError, match=r"query 'q', candidate 2: expected a Candidate, found "):
        Request(query=QUERY, candidates=(candidate(), wrong))


@pytest.mark.parametrize("query", [None, "what", {"qid": "q", "text": "what"}])
def test_a_request_has_a_query(query):
    """A string is rejected."""
    with pytest.raises(RankLLMError, match=r"query: expected a Query, found "):
        Request(query=query, candidates=())


def test_a_docid_is_listed_once():
    """Duplicates are rejected."""
    with pytest.raises(RankLLMError, match="query 'q': docid 'd' occurs twice"):
        Request(query=QUERY, candidates=[candidate(), candidate()])

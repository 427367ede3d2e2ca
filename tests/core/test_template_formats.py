"""A format specification in a template is applied or rejected when the template is loaded, never ignored."""

from __future__ import annotations

import pytest

from rankllm_core.errors import ConfigError
from rankllm_core.prompts.template import template_from_dict


def content(body, *, prefix="{query}\n", labels="12", scores=(12.34567, 3.0)):
    """The text of a one-turn template for two passages."""
    template = template_from_dict({"method": "singleturn_listwise", "prefix": prefix, "body": body}, name="t")
    (turn,) = template.render("q", ["a", "b"], labels=labels, scores=scores)
    return turn.content


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("[{rank:>4}] {candidate} {score:.1f}\n", "q\n[   1] a 12.3\n[   2] b 3.0\n"),
        ("[{rank:02d}] {candidate} {score}\n", "q\n[01] a 12.346\n[02] b 3.000\n"),
        ("[{rank:*<3}] {candidate} {score:8.2e}\n", "q\n[1**] a 1.23e+01\n[2**] b 3.00e+00\n"),
        ("[{rank}] {candidate} {score:+.0f}\n", "q\n[1] a +12\n[2] b +3\n"),
        ("[{rank}] {candidate} {{score:.1f}}\n", "q\n[1] a {score:.1f}\n[2] b {score:.1f}\n"),
    ],
)
def test_scores_and_identifiers_are_written_in_their_format(body, expected):
    """Python's format syntax applies; the default for scores is three decimals."""
    assert content(body) == expected


def test_a_count_and_letters_take_a_format_too():
    """`num` is a number, and letters can be padded."""
    assert content("[{rank:>2}] {candidate}", prefix="{num:03d} {query}: ", labels="AB") == "002 q: [ A] a[ B] b"
    assert content("{candidate}{rank} {score:.1f}|", scores=()) == "q\na1 |b2 |"


def test_a_format_that_an_identifier_cannot_take_is_one_line():
    """This kind of zero padding works for numbers only."""
    with pytest.raises(ConfigError, match=r"the placeholder \{rank:02d\} cannot format 'A'"):
        content("[{rank:02d}] {candidate}", labels="AB")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("[{rank}] {candidate!r}", r"\{candidate!r\}: expected no conversion; write \{candidate\}"),
        ("[{rank!s}] {candidate}", r"\{rank!s\}: expected no conversion"),
        ("[{rank}] {candidate} {score!r:>10}", r"\{score!r:>10\}: expected no conversion"),
        ("[{rank}] {candidate:>4}", r"\{candidate:>4\}: only score, rank and num take a format"),
        ("[{rank}] {candidate} {query:.3}", r"\{query:\.3\}: only score, rank and num take a format"),
        ("[{rank}] {candidate} {score:d}", r"\{score:d\}: unknown format 'd', expected one such as \.1f"),
        ("[{rank:q}] {candidate}", r"\{rank:q\}: unknown format 'q', expected one such as >4 or 02d"),
        ("[{rank:>99999}] {candidate}", r"\{rank:>99999\}: unknown format"),
        ("[{rank:{num}}] {candidate}", r"\{rank:\{num\}\}: unknown format"),
        ("[{rank}] {candidate[0]}", r"\{candidate\[0\]\}"),
        ("[{rank}] {candidate.text} {candidate}", r"\{candidate\.text\}"),
        ("[{rank.__class__}] {candidate} {rank}", r"\{rank\.__class__\}"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(body, named):
    """Conversions, formats of texts, attributes and indexes give a one-line error."""
    with pytest.raises(ConfigError, match=named) as caught:
        content(body)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"layout": "segments", "query": "q: {query!r}", "passage": "{text}"},
        {"layout": "joined", "query": "q: {query}", "passage": "{title:>9} {text}"},
        {"body": "{query} {document!s}"},
    ],
)
def test_pointwise_templates_take_no_format(values):
    """They show texts only."""
    with pytest.raises(ConfigError, match=r"template t: (query|passage|body): the placeholder"):
        template_from_dict({"method": "pointwise", **values}, name="t")

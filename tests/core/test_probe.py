"""The probe in a card: what it may contain, how it is written, and when two results agree."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from rankllm_core.card import ListwiseCard, PointwiseCard, card_from_dict, load_card, save_card
from rankllm_core.errors import ConfigError
from rankllm_core.probe import Comparison, Probe, ProbedQuery, new_requests, recorded
from rankllm_core.prompts.template import load_template

LISTWISE = ListwiseCard(template=load_template("rank_zephyr"))
POINTWISE = PointwiseCard(template=load_template("rankllama"))


def probe(*scores, dtype="float32"):
    """A probe of one query with these scores."""
    passages = tuple(f"passage {number}" for number in range(len(scores)))
    return Probe(dtype=dtype, queries=(ProbedQuery(query="a question", passages=passages, scores=scores),))


PROBE = probe(1.5, -2.0, 0.25)


@pytest.mark.parametrize("card", [LISTWISE, POINTWISE], ids=lambda card: card.kind)
def test_a_card_keeps_its_probe_in_format_3(tmp_path, card):
    """Older releases reject the file in one line instead of reading part of it."""
    save_card(replace(card, probe=PROBE), tmp_path)
    assert load_card(tmp_path) == replace(card, probe=PROBE)
    values = yaml.safe_load((tmp_path / "rankllm.yaml").read_text(encoding="utf-8"))
    assert values["format"] == 3
    assert values["probe"] == {
        "dtype": "float32",
        "queries": [
            {"query": "a question", "passages": ["passage 0", "passage 1", "passage 2"], "scores": [1.5, -2.0, 0.25]}
        ],
    }


@pytest.mark.parametrize("card", [LISTWISE, POINTWISE], ids=lambda card: card.kind)
def test_a_card_without_a_probe_is_written_as_ever(card):
    """The oldest sufficient format is used."""
    assert card.to_dict()["format"] == 1
    assert "probe" not in card.to_dict()


QUERY = {"query": "q", "passages": ["a", "b"], "scores": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "probe: expected a mapping of names to values, found list"),
        ({"dtype": "float32"}, "probe: queries: expected list, found NoneType None"),
        (
            {"dtype": "int8", "queries": [QUERY]},
            "probe: dtype: expected one of float32, float16, bfloat16; found 'int8'",
        ),
        ({"dtype": "float32", "queries": []}, "probe: expected 1 to 8 queries, found 0"),
        ({"dtype": "float32", "queries": [QUERY] * 9}, "probe: expected 1 to 8 queries, found 9"),
        ({"dtype": "float32", "queries": [QUERY], "order": [1]}, "probe: order: unknown key"),
        ({"dtype": "float32", "queries": [QUERY | {"score": 1}]}, "probe: queries: score: unknown key"),
        ({"dtype": "float32", "queries": [QUERY | {"passages": ["a"], "scores": [1.0]}]}, "2 to 9 passages"),
        ({"dtype": "float32", "queries": [QUERY | {"scores": [1.0]}]}, "1 scores for 2 passages"),
        ({"dtype": "float32", "queries": [QUERY | {"scores": [1.0, float("nan")]}]}, "expected finite scores"),
        ({"dtype": "float32", "queries": [QUERY | {"scores": [1.0, "x"]}]}, "expected int or float, found str 'x'"),
        ({"dtype": "float32", "queries": [QUERY | {"passages": ["a", 3]}]}, "passages: expected str, found int 3"),
        ({"dtype": "float32", "queries": [QUERY | {"query": " "}]}, "expected texts of 1 to 1,000 characters"),
        ({"dtype": "float32", "queries": [QUERY | {"query": "x" * 1001}]}, "expected texts of 1 to 1,000 characters"),
    ],
)
def test_a_probe_that_cannot_be_used_is_one_line(value, message):
    """The error names file and key."""
    with pytest.raises(ConfigError) as error:
        card_from_dict(POINTWISE.to_dict() | {"format": 3, "probe": value}, where="m/rankllm.yaml")
    text = str(error.value)
    assert text.startswith("m/rankllm.yaml: ")
    assert message in text
    assert "\n" not in text


def test_a_new_probe_asks_two_queries_of_four_short_passages():
    """The texts fit RankLLaMA's 32 and 164 tokens: a word is at most three tokens here."""
    requests = new_requests()
    assert [len(request.candidates) for request in requests] == [4, 4]
    assert all(len(request.query.text.split()) <= 10 for request in requests)
    assert all(len(str(c.doc["text"]).split()) <= 15 for request in requests for c in request.candidates)


def test_a_recorded_probe_asks_the_same_again():
    """The texts are stored in the card, since another version may use different ones."""
    requests = new_requests()
    made = recorded(requests, [[1.0000049, 2, 3, 4], [4, 3, 2, 1]], dtype="bfloat16")
    assert made.requests() == requests
    assert made.queries[0].scores == (1.0, 2.0, 3.0, 4.0)
    assert made.queries[0].order == (3, 2, 1, 0)


# By hand: float32 0.001 + 0.0001 x 20; float16 0.02 + 0.002 x 20; bfloat16 0.2 + 0.015 x 20.
@pytest.mark.parametrize(
    ("before", "now", "tolerance"),
    [
        ("float32", "float32", 0.003),
        ("float32", "float16", 0.06),
        ("float16", "bfloat16", 0.5),
        ("bfloat16", "float32", 0.5),
    ],
)
def test_the_tolerance_is_that_of_the_less_precise_dtype(before, now, tolerance):
    """It grows with the largest recorded score, as rounding errors do; both sides of the limit are tested."""
    for factor, agrees in ((0.99, True), (1.01, False)):
        found = probe(20.0, 1.0 + factor * tolerance, dtype=now)
        compared = Comparison(recorded=probe(20.0, 1.0, dtype=before), found=found)
        assert compared.tolerance == pytest.approx(tolerance)
        assert compared.agrees is agrees


def test_an_order_that_rounding_changed_is_no_alarm_and_any_other_is():
    """Two recorded scores that are nearly equal may swap places."""
    close = Comparison(recorded=probe(1.0, 1.0005), found=probe(1.0005, 1.0))
    far = Comparison(recorded=probe(1.0, 1.5), found=probe(1.5, 1.0))
    assert close.agrees
    assert close.found.queries[0].order != close.recorded.queries[0].order
    assert not far.agrees


def test_a_disagreement_shows_both():
    """Scores, dtypes, tolerance and, if it changed, the order."""
    compared = Comparison(recorded=probe(1.0, 1.5), found=probe(1.5, -1.0, dtype="bfloat16"))
    assert str(compared) == (
        "query 'a question': recorded 1.000 1.500 (float32), found 1.500 -1.000 (bfloat16), tolerance 0.22; "
        "ranks 2 > 1 became 1 > 2"
    )
    assert "ranks" not in str(Comparison(recorded=probe(1.0, 1.5), found=probe(2.0, 3.0)))

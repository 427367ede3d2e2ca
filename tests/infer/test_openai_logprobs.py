"""Log-probabilities as reported by servers: repeated, with several spellings, withheld."""

from __future__ import annotations

import math

import pytest
from chat_server import logprobs_reply, serving
from openai_asking import ask, first_prompt

pytestmark = pytest.mark.usefixtures("no_proxy")


@pytest.mark.parametrize("sampled", [-0.47, -0.4700001, -0.46998])
def test_a_sampled_word_that_is_reported_twice_counts_once(sampled):
    """`content` and `top_logprobs` may differ in the last digits: P(yes) is not counted twice."""
    reply = logprobs_reply([("yes", -0.47), ("no", -1.2)])
    reply["choices"][0]["logprobs"]["content"][0]["logprob"] = sampled
    with serving(lambda _: reply) as server:
        answer = ask(server.base_url, first_prompt("yes", "no"))
    assert answer.scores == pytest.approx((-0.47, -1.2))


def test_other_spellings_still_add_up():
    """`yes`, ` Yes` and `YES` are three tokens, whichever was sampled."""
    likeliest = [("yes", math.log(0.5)), (" Yes", math.log(0.125)), ("YES", math.log(0.0625)), ("no", math.log(0.25))]
    with serving(lambda _: logprobs_reply(likeliest)) as server:
        answer = ask(server.base_url, first_prompt("yes", "no"))
    assert answer.scores == pytest.approx((math.log(0.6875), math.log(0.25)))


@pytest.mark.parametrize("untold", [-9999.0, -9999, -99999.5])
def test_what_stands_for_no_probability_is_none(untold):
    """OpenAI and vLLM write -9999.0 for unreported values."""
    with serving(lambda _: logprobs_reply([("A", -0.1), ("B", untold)])) as server:
        assert ask(server.base_url, first_prompt("A", "B")).scores == (-0.1, -math.inf)


def test_identifiers_that_are_all_untold_are_an_error():
    """A ranking of -9999.0 everywhere is not a ranking."""
    with serving(lambda _: logprobs_reply([("The", -0.1), ("A", -9999.0), ("B", -9999.0)])) as server:
        assert "none of the identifiers A, B" in str(ask(server.base_url, first_prompt("A", "B")))

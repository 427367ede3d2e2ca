"""Positional bias of a FIRST model: measured, subtracted, and never applied by accident."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import pytest
import yaml
from ranking_fakes import docids, make_method, make_request, number, rerank, shown
from ranking_server import request, write_jsonl

from rankllm_core.card import ListwiseCard, save_card
from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.prompts.template import load_template
from rankllm_infer.effective_card import resolve_card
from rankllm_infer.engines.base import Answer
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.options import RerankOptions
from rankllm_infer.ranking.identifier_prior import measure_prior, read_prior, shuffled_windows, without_prior

PRIOR = (0.5, -2.0, 0.0, 1.5)
FIRST = ListwiseCard(
    template=load_template("rank_zephyr_alpha"),
    identifiers="alpha",
    answer="first-token",
    window_size=4,
    stride=2,
    identifier_prior=PRIOR,
)


def biased(prompt):
    """A FIRST model that prefers high numbers, by half a grade each, and some letters."""
    texts = [text for _, text in shown(prompt)]
    return Answer(scores=tuple(number(text) / 2 + share for text, share in zip(texts, PRIOR, strict=False)))


def test_each_passage_in_each_place_leaves_the_prior_alone():
    """Passages of 10, 20, 30 and 60, rotated four times; the prior has mean 0."""
    values = (10.0, 20.0, 30.0, 60.0)
    windows = [[values[(place + turn) % 4] + share for place, share in enumerate(PRIOR)] for turn in range(4)]
    found = measure_prior(windows)
    assert found.means == pytest.approx(PRIOR)
    # Each place sees -20, -10, 0 and 30 about the mean: a deviation of sqrt(1400 / 3), over the root of 4 windows.
    assert found.errors == pytest.approx([(1400 / 3) ** 0.5 / 2] * 4)
    assert found.n_windows == 4


def test_few_windows_are_vague():
    """Passages 10 apart rotated twice are uninformative about half a nat; a hundred rotations suffice."""
    turns = [[0.5, 10.0], [10.5, 0.0]]
    assert measure_prior(turns).is_vague
    assert not measure_prior(turns * 100).is_vague


def test_the_spread_is_that_of_a_window():
    """Two passages 2 and 6 apart: standard deviations of 1 and 3."""
    assert measure_prior([[7.0, 5.0], [0.0, 6.0]]).spread == pytest.approx(2.0)


def test_one_window_is_not_enough():
    """It has no standard error."""
    with pytest.raises(RankLLMError, match="found 1 window, expected at least 2; use more queries"):
        measure_prior([[1.0, 2.0]])


def test_what_is_taken_off_is_each_identifiers_own():
    """A window may contain fewer passages; without a prior nothing changes."""
    assert without_prior((1.0, 2.0, 3.0), (0.5, -1.0, 0.0, 9.0)) == (0.5, 3.0, 3.0)
    assert without_prior((1.0, 2.0), ()) == (1.0, 2.0)


def test_windows_are_drawn_by_lot_and_whole():
    """Two windows of four from ten candidates; no passage twice; reproducible by seed."""
    asked = make_request("q", 10)
    windows = list(shuffled_windows(asked, size=4, seed=1))
    assert [(window.query.qid, len(window.candidates)) for window in windows] == [("q/0", 4), ("q/1", 4)]
    seen = [candidate.docid for window in windows for candidate in window.candidates]
    assert len(set(seen)) == 8
    assert seen != [candidate.docid for candidate in asked.candidates[:8]]
    assert list(shuffled_windows(asked, size=4, seed=1)) == windows
    assert list(shuffled_windows(asked, size=4, seed=2)) != windows
    assert list(shuffled_windows(make_request("q", 3), size=4, seed=1)) == []


@pytest.mark.parametrize(("prior", "first"), [(PRIOR, ["d5", "d4"]), ((), ["d4", "d5"])])
def test_the_order_is_as_if_there_were_no_letters(prior, first):
    """Without its prior the model that prefers high numbers puts them first; with it the letters have a say.

    Windows d2 d3 d4 d5, then d0 d1 and the two it left first. By hand with the prior in: 1.5, -.5, 2, 4 (d5 d4 d2 d3);
    then d0 d1 d5 d4: .5, -1.5, 2.5, 3.5 (d4 d5 d0 d1).
    """
    card = {"identifiers": "alpha", "answer": "first-token", "identifier_prior": prior}
    plan = make_method(size=4, stride=2, template="rank_zephyr_alpha", card=card)
    (result,) = rerank(ScriptedEngine(biased), [make_request("q", 6)], plan)
    assert docids(result)[:2] == first


def test_too_many_scores_are_no_ranking():
    """An engine fault is detected with or without a prior."""
    card = {"identifiers": "alpha", "answer": "first-token", "identifier_prior": PRIOR}
    plan = make_method(size=4, stride=2, template="rank_zephyr_alpha", card=card)
    engine = ScriptedEngine(lambda prompt: Answer(scores=(1.0,) * 5))
    (result,) = rerank(engine, [make_request("q", 4)], plan)
    assert (result.status, result.error) == ("failed", "query 'q': expected 4 identifier scores, the engine returned 5")


def test_what_no_server_told_stays_untold():
    """A missing log-probability remains -inf after subtraction."""
    assert without_prior((-math.inf, 2.0), (0.5, 1.0)) == (-math.inf, 1.0)


def test_scores_are_told_without_the_prior():
    """As compared; a trace keeps the raw scores."""
    card = {"identifiers": "alpha", "answer": "first-token", "identifier_prior": PRIOR}
    plan = make_method(size=4, stride=2, template="rank_zephyr_alpha", card=card, with_trace=True)
    (result,) = rerank(ScriptedEngine(biased), [make_request("q", 4)], plan)
    assert {c.docid: c.model_score for c in result.candidates} == {"d0": 0.0, "d1": 0.5, "d2": 1.0, "d3": 1.5}
    assert result.trace[0].scores == (0.5, -1.5, 1.0, 3.0)


@pytest.mark.parametrize(
    "options", [{"window_size": 8}, {"use_alpha": False, "use_logits": True}, {"template": "query_behind_alpha"}]
)
def test_other_windows_have_another_prior(tmp_path, options):
    """The card's prior was measured with other windows: it is ignored, with a warning."""
    save_card(FIRST, tmp_path)
    resolved = resolve_card("m", RerankOptions(**options), folder=tmp_path, score_head=False)
    assert resolved.card.identifier_prior == ()
    assert "identifier_prior of m/rankllm.yaml was measured with other windows and is ignored" in resolved.warnings


def test_an_option_decides(tmp_path):
    """With a warning if it contradicts the card; without one if the card has no prior."""
    save_card(FIRST, tmp_path)
    resolved = resolve_card("m", RerankOptions(identifier_prior=()), folder=tmp_path, score_head=False)
    assert resolved.card == replace(FIRST, identifier_prior=())
    (warning,) = resolved.warnings
    assert warning == "--identifier-prior: no prior is used; m/rankllm.yaml contains one"
    save_card(replace(FIRST, identifier_prior=()), tmp_path)
    resolved = resolve_card("m", RerankOptions(identifier_prior=PRIOR), folder=tmp_path, score_head=False)
    assert (resolved.card, resolved.warnings) == (FIRST, ())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"use_logits": False, "window_size": 4, "stride": 2},
            "--identifier-prior has no effect with generation, only with FIRST",
        ),
        ({"method": "pointwise"}, "--identifier-prior has no effect on a pointwise reranker"),
        (
            {"use_logits": True},
            "--identifier-prior: found 4 values, expected 20, one per identifier of a window",
        ),
    ],
)
def test_only_first_has_one(options, message):
    """An option without effect is rejected."""
    with pytest.raises(ConfigError, match=message):
        resolve_card("m", RerankOptions(identifier_prior=PRIOR, **options), folder=None, score_head=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("identifier_prior: 3", "identifier_prior: expected a list of numbers, found int 3"),
        ("identifier_prior: [1, x]", "identifier_prior: expected int or float, found str 'x'"),
        ("identifier_priors: [1]", "identifier_priors: unknown key; did you mean 'identifier_prior'"),
        (
            "identifier_prior: []",
            "identifier_prior: found no numbers; to subtract nothing, pass none instead of a file",
        ),
        ("windows: 3", "identifier_prior: expected a list of numbers, found NoneType None"),
    ],
)
def test_a_file_that_is_no_prior_is_refused(tmp_path, text, message):
    """The error names it."""
    path = tmp_path / "prior.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{path}: {message}"):
        read_prior(path)


@pytest.fixture
def carded(tmp_path, tiny_causal):
    """The tiny model with a FIRST card."""
    folder = tmp_path / "carded"
    shutil.copytree(tiny_causal, folder)
    save_card(replace(FIRST, identifier_prior=(), context_tokens=1024), folder)
    return folder


@pytest.fixture
def alike(tmp_path):
    """A query with nine identical candidates."""
    asked = request("q", *range(9))
    for candidate in asked["candidates"]:
        candidate["doc"] = {"text": "the same"}
    return write_jsonl(tmp_path / "alike.jsonl", asked)


def spread(path):
    """Largest difference between scores of the first window."""
    result = json.loads(path.read_text(encoding="utf-8"))
    scores = [candidate["model_score"] for candidate in result["candidates"][:4]]
    return max(scores) - min(scores)


def test_what_calibrate_finds_rerank_takes_off(tmp_path, rankllm, carded, alike):
    """For identical passages only the prior distinguishes them: without it their scores are equal."""
    prior, raw, even = tmp_path / "prior.yaml", tmp_path / "raw.jsonl", tmp_path / "even.jsonl"
    model = ["--model-path", carded, "--dtype", "float32"]
    done = rankllm("calibrate", *model, "--requests", alike, "--output", prior)
    assert done.code == 0, done.err
    found = yaml.safe_load(prior.read_text(encoding="utf-8"))
    assert (found["windows"], found["standard_errors"]) == (2, [0.0] * 4)
    assert sum(found["identifier_prior"]) == pytest.approx(0.0, abs=0.03)
    lines = [line.split() for line in done.out.splitlines()]
    assert [line[0] for line in lines[1:5]] == ["[A]", "[B]", "[C]", "[D]"]
    assert [float(line[1]) for line in lines[1:5]] == found["identifier_prior"]
    window = ["--requests", alike, "--top-k-candidates", "4"]
    assert rankllm("rerank", *model, *window, "--output-jsonl", raw).code == 0
    taken_off = rankllm("rerank", *model, *window, "--output-jsonl", even, "--identifier-prior", prior)
    assert taken_off.code == 0, taken_off.err
    assert spread(raw) > 0.05
    assert spread(even) <= 0.02


def test_another_models_prior_is_taken_with_a_warning(tmp_path, rankllm, carded, alike):
    """Each model has its own."""
    prior = tmp_path / "prior.yaml"
    prior.write_text("model: models/other\nidentifier_prior: [1, 0, 0, -1]\n", encoding="utf-8")
    command = ["rerank", "--model-path", carded, "--requests", alike, "--identifier-prior", prior]
    done = rankllm(*command, "--output", tmp_path / "run.trec")
    assert done.code == 0, done.err
    assert f"Warning: {prior} was measured with models/other, not {carded}" in done.err
    over_it = rankllm(*command, "--output", prior, "--overwrite")
    assert over_it.code == 1
    assert "models/other" in prior.read_text(encoding="utf-8")


def test_calibrate_asks_what_it_is_told_to(tmp_path, rankllm, carded, alike):
    """Eight of nine candidates give two windows, as do nine; four give one, which is too few; the seed changes
    windows."""
    model = ["calibrate", "--model-path", carded, "--requests", alike]
    assert (
        "2 windows; standard deviation" in rankllm(*model, "--top-k-candidates", 8, "--max-queries", 1, "--seed", 3).out
    )
    done = rankllm(*model, "--top-k-candidates", 4)
    assert done.code == 1
    assert f"{alike}: found 1 window of 4 candidates each, expected at least 2" in done.err


def test_calibrate_says_what_it_cannot_measure(tmp_path, rankllm, carded, alike):
    """Before a model is loaded: no identifiers to read, no full window, an existing output."""
    generating = ["--model-path", carded, "--requests", alike]
    save_card(replace(FIRST, answer="permutation", identifier_prior=()), carded)
    done = rankllm("calibrate", *generating)
    assert done.code == 1
    assert "is not a FIRST model, which ranks by the logits of its identifiers; nothing to measure" in done.err
    save_card(replace(FIRST, identifier_prior=()), carded)
    done = rankllm("calibrate", *generating, "--window-size", "10")
    assert done.code == 1
    assert f"{alike}: found 0 windows of 10 candidates each, expected at least 2" in done.err
    output = tmp_path / "there.yaml"
    output.write_text("mine", encoding="utf-8")
    done = rankllm("calibrate", *generating, "--output", output)
    assert done.code == 1
    assert output.read_text(encoding="utf-8") == "mine"

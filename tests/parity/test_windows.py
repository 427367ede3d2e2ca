"""Sliding windows against those recorded from castorini/rank_llm@1b3cabb."""

from __future__ import annotations

import json

import pytest
from ranking_fakes import answer_by, docids, make_method, make_request, number, rerank, shown
from shared_files import golden

from rankllm_core.types import Request
from rankllm_infer.engines.base import Answer
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.ranking.strategies import WindowSchedule


@pytest.fixture(scope="module")
def cases():
    """The recorded runs, but for those whose stride skips ranks: rankllm refuses such a schedule."""
    recorded = json.loads(golden("windows.json").read_text(encoding="utf-8"))
    return [case for case in recorded if case["stride"] <= case["window"]]


def test_nearly_all_recorded_runs_are_compared(cases):
    """Of 140, those that skip ranks are a few."""
    assert len(cases) >= 120


def bounds(case):
    """The ranks that the original reads; rankllm slides over that slice and leaves the rest as it is."""
    return case["rank_start"], max(case["rank_start"], min(case["rank_end"], case["top_k_retrieve"], case["n"]))


def test_windows_come_in_the_recorded_order(cases):
    """From the bottom up, also where the list is shorter than a window or begins below rank 0."""
    for case in cases:
        first, last = bounds(case)
        windows = WindowSchedule(size=case["window"], stride=case["stride"]).windows(last - first)
        assert [[first + start, first + end] for start, end in windows] == case["windows"], case


def reverse(prompt):
    """A model that turns each window round."""
    return Answer(text=" > ".join(f"[{label}]" for label, _ in reversed(shown(prompt))))


@pytest.mark.parametrize(
    ("recorded", "answer"),
    [
        ("final_order_reverse", reverse),
        ("final_order_hash", answer_by(lambda text: (number(text) * 7919 + 13) % 1009)),
    ],
)
def test_rerankings_end_in_the_recorded_order(cases, recorded, answer):
    """Two made-up models, every window applied before the next is asked."""
    for case in cases:
        first, last = bounds(case)
        whole = make_request("q", case["n"])
        slice_ = Request(query=whole.query, candidates=whole.candidates[first:last])
        plan = make_method(size=case["window"], stride=case["stride"])
        (result,) = rerank(ScriptedEngine(answer), [slice_], plan)
        order = [number(c.docid) for c in whole.candidates[:first]]
        order += [number(docid) for docid in docids(result)]
        order += [number(c.docid) for c in whole.candidates[last:]]
        assert order == case[recorded], case

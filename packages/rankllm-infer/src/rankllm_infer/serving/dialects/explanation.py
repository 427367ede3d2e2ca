"""The `explanation` of a ranking as JSON: what the model was asked and what it answered. Pure functions.

Field names are those of `rerank --trace` files, with documents identified by their index. Prompts are omitted: they
repeat the documents, and contain the operator's system message and examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rankllm_core.types import Result, WindowTrace

MAX_EXPLAINED_CALLS = 1000
"""Maximum number of model calls in a response: all windows, or the first of many pairs."""
MAX_ANSWER_CHARACTERS = 20_000
"""Maximum length of each answer. Models that reason first write the ranking at the end, so both ends are kept."""
_MAX_DEFECTS = 100
"""Maximum number of defects listed; otherwise, a misbehaving model with 1,000 documents would fill the response."""


def explanation_json(result: Result) -> dict[str, object]:
    """Return the model calls of a ranking in order, the number of omitted calls, and how many documents they ranked."""
    return {
        "calls": [_call_json(call) for call in result.trace],
        "n_omitted": max(0, result.usage.calls - len(result.trace)),
        "n_ranked": result.n_ranked,
    }


def renamed(defects: Sequence[str]) -> list[str]:
    """Rewrite defects in the caller's terms: candidates are the request's documents, identified by their index."""
    shown = [defect.replace("docid ", "document ") for defect in defects[:_MAX_DEFECTS]]
    n_more = len(defects) - len(shown)
    return [*shown, f"... and {n_more} more"] if n_more else shown


def _call_json(call: WindowTrace) -> dict[str, object]:
    scores = call.scores or ()
    return {
        "start": call.start,
        "indices": [int(docid) for docid in call.docids],
        "order": list(call.order),
        "scores": [score if math.isfinite(score) else None for score in scores] or None,
        "response": _shortened(call.response),
        "status": call.status,
        "defects": renamed(call.defects),
        "prompt_tokens": call.usage.prompt_tokens,
        "completion_tokens": call.usage.completion_tokens,
    }


def _shortened(answer: str) -> str:
    """Return an answer, without its middle part if very long."""
    n_omitted = len(answer) - MAX_ANSWER_CHARACTERS
    if n_omitted <= 0:
        return answer
    half = MAX_ANSWER_CHARACTERS // 2
    return f"{answer[:half]}\n[... {n_omitted} characters ...]\n{answer[-half:]}"

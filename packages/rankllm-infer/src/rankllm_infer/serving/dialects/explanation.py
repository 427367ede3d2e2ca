"""What the model was asked and what it answered, as JSON of a response: the `explanation` of a ranking. Pure functions.

The words are those of a file that `rerank --trace` writes, with documents called by their index. Prompts are left out:
they repeat the documents, and an operator's system message and examples are in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rankllm_core.types import Result, WindowTrace

MAX_EXPLAINED_CALLS = 1000
"""Model calls that a response shows: all windows, and the first of many pairs."""
MAX_ANSWER_CHARACTERS = 20_000
"""Of each answer. A model that reasons first writes its order at the end, so both ends are kept."""
_MAX_DEFECTS = 100
"""That are listed; a model that is mad over 1,000 documents would fill a response."""


def explanation_json(result: Result) -> dict[str, object]:
    """The model calls of a ranking in the order they were made, how many more there were, and what they have ranked."""
    return {
        "calls": [_call_json(call) for call in result.trace],
        "n_omitted": max(0, result.usage.calls - len(result.trace)),
        "n_ranked": result.n_ranked,
    }


def renamed(defects: Sequence[str]) -> list[str]:
    """Defects in a caller's words: the candidates of a request are its documents, called by their index."""
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
    """An answer, without its middle where it is very long."""
    n_omitted = len(answer) - MAX_ANSWER_CHARACTERS
    if n_omitted <= 0:
        return answer
    half = MAX_ANSWER_CHARACTERS // 2
    return f"{answer[:half]}\n[... {n_omitted} characters ...]\n{answer[-half:]}"

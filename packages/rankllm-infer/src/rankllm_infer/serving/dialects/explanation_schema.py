"""JSON schema of an `explanation`, as built by `explanation`."""

from __future__ import annotations

from rankllm_infer.serving.dialects.abilities import Schema, array_of, object_of
from rankllm_infer.serving.dialects.explanation import MAX_EXPLAINED_CALLS

_COUNT: Schema = {"type": "integer", "minimum": 0}
_CALL = object_of(
    {
        "start": {
            "type": ["integer", "null"],
            "description": "Rank of the first document shown, from 0; null if the documents were not a slice of the "
            "ranking.",
        },
        "indices": array_of(_COUNT, "Documents shown, in the order of the prompt."),
        "order": array_of(_COUNT, "Positions in `indices`, best first, as the answer was read."),
        "scores": {
            "type": ["array", "null"],
            "items": {"type": ["number", "null"]},
            "description": "Scores that determined the order: one per document shown, or those of yes and no.",
        },
        "response": {"type": "string", "description": "What the model wrote; the middle of a long answer is omitted."},
        "status": {"enum": ["ok", "repaired", "fallback"]},
        "defects": array_of({"type": "string"}),
        "prompt_tokens": _COUNT,
        "completion_tokens": _COUNT,
    }
)
EXPLANATION: Schema = {
    **object_of(
        {
            "calls": {**array_of(_CALL, "Model calls in order."), "maxItems": MAX_EXPLAINED_CALLS},
            "n_omitted": {**_COUNT, "description": "Number of further calls that are not shown."},
            "n_ranked": {
                "type": ["integer", "null"],
                "description": "Number of documents at the top whose order comes from the model; the others keep the "
                "order of the request, or an order not determined by any answer.",
            },
        }
    ),
    "description": "With `explain`: what the model was asked and what it answered.",
}

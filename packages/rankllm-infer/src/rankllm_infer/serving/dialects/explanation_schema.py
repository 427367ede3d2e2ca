"""JSON schema of an `explanation`; `explanation` writes what it describes."""

from __future__ import annotations

from rankllm_infer.serving.dialects.abilities import Schema, array_of, object_of
from rankllm_infer.serving.dialects.explanation import MAX_EXPLAINED_CALLS

_COUNT: Schema = {"type": "integer", "minimum": 0}
_CALL = object_of(
    {
        "start": {
            "type": ["integer", "null"],
            "description": "Rank of the first document shown, from 0; null where the documents were no slice of the "
            "ranking.",
        },
        "indices": array_of(_COUNT, "Documents shown, in the order of the prompt."),
        "order": array_of(_COUNT, "Positions in `indices`, best first, as the answer was read."),
        "scores": {
            "type": ["array", "null"],
            "items": {"type": ["number", "null"]},
            "description": "What the order was read off: one score per document shown, or those of yes and no.",
        },
        "response": {"type": "string", "description": "What the model wrote; the middle of a long answer is left out."},
        "status": {"enum": ["ok", "repaired", "fallback"]},
        "defects": array_of({"type": "string"}),
        "prompt_tokens": _COUNT,
        "completion_tokens": _COUNT,
    }
)
EXPLANATION: Schema = {
    **object_of(
        {
            "calls": {**array_of(_CALL, "Model calls in the order they were made."), "maxItems": MAX_EXPLAINED_CALLS},
            "n_omitted": {**_COUNT, "description": "Further calls that are not shown."},
            "n_ranked": {
                "type": ["integer", "null"],
                "description": "Documents at the head of the ranking whose order the model gave; those below keep the "
                "order of the request, or one that no answer tells.",
            },
        }
    ),
    "description": "With `explain`: what the model was asked and what it answered.",
}

"""Requests to `/score`: pairs of texts, in the three spellings that vLLM accepts. Pure functions.

Source: vllm-project/vllm vllm/entrypoints/pooling/scoring/protocol.py: `queries` with `documents`, `text_1` with
`text_2`, `data_1` with `data_2`; one against N, or N against N.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rankllm_core.card import Card
from rankllm_core.files.json_text import found
from rankllm_infer.ranking.relevance import relevance_scores
from rankllm_infer.serving.dialects.answers import Ranked, meta_of, usage_json
from rankllm_infer.serving.dialects.errors import InvalidRequestError, ServingError
from rankllm_infer.serving.dialects.fields import read_field

SPELLINGS = (("queries", "documents"), ("text_1", "text_2"), ("data_1", "data_2"))
FIELDS_OF_PAIRS = ("model", "instruction", "max_tokens_per_doc")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairQuestion:
    """Validated pairs to score."""

    groups: tuple[tuple[str, tuple[str, ...]], ...]
    """(query, its documents): one group of N documents, or N groups of one."""
    model: str | None = None
    instruction: str | None = None
    max_tokens_per_doc: int | None = None
    warnings: tuple[str, ...] = ()


def read_pairs(body: object, *, max_documents: int) -> PairQuestion:
    """Parse the pairs of a request's JSON.

    Raises InvalidRequestError for invalid values, ServingError with status 400 or 413 for no texts or too many.
    """
    if not isinstance(body, Mapping):
        raise ServingError(400, f"body: expected a JSON object, found {found(body)}")
    fields = {key: value for key, value in body.items() if value is not None}
    spelling = next((keys for keys in SPELLINGS if set(keys) & set(fields)), SPELLINGS[0])
    one, other = (_texts(fields, key) for key in spelling)
    if len(other) > max_documents:
        raise ServingError(413, f"{spelling[1]}: expected at most {max_documents} texts, found {len(other)}")
    if len(one) not in (1, len(other)):
        raise InvalidRequestError(
            f"{spelling[0]}: expected one text, or as many as in {spelling[1]} ({len(other)}), found {len(one)}"
        )
    groups = ((one[0], tuple(other)),) if len(one) == 1 else tuple((a, (b,)) for a, b in zip(one, other, strict=True))
    values = {key: read_field(key, fields[key]) or None for key in FIELDS_OF_PAIRS if key in fields}
    unknown = [key for key in fields if key not in (*spelling, *FIELDS_OF_PAIRS)]
    return PairQuestion(
        groups=groups, warnings=tuple(f"field {key[:40]!r} has no effect here" for key in unknown), **values
    )


def _texts(fields: Mapping[str, object], key: str) -> list[str]:
    given = fields.get(key)
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list):
        what = "nothing" if key not in fields else found(given)
        raise InvalidRequestError(f"{key}: expected a string or an array of strings, found {what}")
    if not texts:
        raise ServingError(400, f"{key}: expected at least one text, found none")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidRequestError(f"{key}[{number}]: expected a string, found {found(text)}")
    return texts


def score_body(question: PairQuestion, answer: Ranked, card: Card, *, model: str, request_id: str) -> dict[str, object]:
    """Build the JSON of scores, in the order of the request."""
    scores: list[float] = []
    kind = None
    for result in answer.results:
        kind, ranked = relevance_scores(result, replace(card, fuse_weight=0.0))
        of_position = {int(c.docid): score for c, score in zip(result.candidates, ranked, strict=True)}
        scores += [of_position[position] for position in range(len(ranked))]
    return {
        "id": request_id,
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)],
        "usage": usage_json(answer.usage),
        "meta": meta_of(answer, kind or "sigmoid", question.warnings),
    }

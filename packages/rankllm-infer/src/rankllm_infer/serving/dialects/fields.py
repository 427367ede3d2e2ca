"""Fields of a rerank request besides its documents: type, bounds and meaning, for parsing and for OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from rankllm_core.files.json_text import found
from rankllm_infer.ranking import pairwise_strategies
from rankllm_infer.ranking.strategies import STRATEGIES
from rankllm_infer.serving.dialects.errors import InvalidRequestError

_LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Accepted values and meaning of one field."""

    kind: Literal["string", "integer", "boolean"]
    about: str
    least: int = 0
    choices: tuple[str, ...] = ()
    pattern: str = ""
    """Regular expression for strings, used in the description; validated where the field is used."""

    @property
    def schema(self) -> dict[str, object]:
        """JSON schema of the field. A null field counts as missing."""
        bounds = {"minimum": self.least, "maximum": _LARGEST} if self.kind == "integer" else {}
        choices = {"enum": [*self.choices, None]} if self.choices else {}
        pattern = {"pattern": self.pattern} if self.pattern else {}
        return {"type": [self.kind, "null"], "description": self.about, **bounds, **choices, **pattern}


FIELDS: Mapping[str, Field] = {
    "query": Field(kind="string", about="Query that the documents are ranked for."),
    "model": Field(kind="string", about="Name of the served model; optional."),
    "top_n": Field(kind="integer", about="Return only the best N documents. In vLLM's dialect, 0 means all."),
    "return_documents": Field(kind="boolean", about="Return the documents as they were sent."),
    "return_text": Field(kind="boolean", about="text-embeddings-inference: return the texts."),
    "raw_scores": Field(kind="boolean", about="Return the model's own scores, such as logits, if it has any."),
    "explain": Field(
        kind="boolean",
        about="Return each model call under `explanation`: documents shown, the order read from the answer, and the "
        "answer itself. Not available in the API of text-embeddings-inference, whose response is an array.",
    ),
    "truncate": Field(kind="boolean", about="text-embeddings-inference: accepted; long texts are always truncated."),
    "truncation_direction": Field(
        kind="string", pattern="^[Rr][Ii][Gg][Hh][Tt]$", about="text-embeddings-inference: only `right` is supported."
    ),
    "instruction": Field(kind="string", about="What counts as relevant, for models that take an instruction."),
    "max_tokens_per_doc": Field(
        kind="integer", about="Maximum number of tokens per document; longer ones are truncated. 0: no limit."
    ),
    "strategy": Field(
        kind="string",
        choices=(*STRATEGIES, *pairwise_strategies.STRATEGIES),
        about="Which passages are shown together; overrides the server's --strategy.",
    ),
    "window_size": Field(kind="integer", least=2, about="Passages per prompt, at most the server's window size."),
    "stride": Field(kind="integer", least=1, about="Number of ranks the sliding window moves per step."),
}
"""All fields that any dialect may send; clients of a dialect use a subset."""


def read_field(name: str, value: object) -> Any:
    """Parse the value of a field. Raises InvalidRequestError if it is invalid."""
    field = FIELDS[name]
    if field.kind == "boolean" and isinstance(value, bool):
        return value
    if field.kind == "string" and isinstance(value, str):
        if field.choices and value not in field.choices:
            raise InvalidRequestError(f"{name}: expected one of {', '.join(field.choices)}, found {found(value)}")
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one type of number: 2.0 is 2
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if field.kind == "integer" and is_whole and field.least <= value <= _LARGEST:  # type: ignore[operator]
        return value
    bounds = f" from {field.least} to {_LARGEST}" if field.kind == "integer" else ""
    article = "an" if field.kind == "integer" else "a"
    raise InvalidRequestError(f"{name}: expected {article} {field.kind}{bounds}, found {found(value)}")

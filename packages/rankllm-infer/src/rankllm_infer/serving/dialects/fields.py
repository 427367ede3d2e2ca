"""The fields of a rerank request beside its documents: type, bounds and meaning, for the reader and for OpenAPI."""

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
    """One field: what it may hold and what it does."""

    kind: Literal["string", "integer", "boolean"]
    about: str
    least: int = 0
    choices: tuple[str, ...] = ()
    pattern: str = ""
    """Regular expression that strings match; for the description, and checked where the field is used."""

    @property
    def schema(self) -> dict[str, object]:
        """Its JSON schema. A field that is null counts as left out."""
        bounds = {"minimum": self.least, "maximum": _LARGEST} if self.kind == "integer" else {}
        choices = {"enum": [*self.choices, None]} if self.choices else {}
        pattern = {"pattern": self.pattern} if self.pattern else {}
        return {"type": [self.kind, "null"], "description": self.about, **bounds, **choices, **pattern}


FIELDS: Mapping[str, Field] = {
    "query": Field(kind="string", about="What the documents are ranked for."),
    "model": Field(kind="string", about="A name of the served model; may be left out."),
    "top_n": Field(kind="integer", about="Return the best N documents only. In vLLM's dialect, 0 stands for all."),
    "return_documents": Field(kind="boolean", about="Return the documents as they were sent."),
    "return_text": Field(kind="boolean", about="text-embeddings-inference: return the texts."),
    "raw_scores": Field(kind="boolean", about="Return the model's own scores, such as logits, where it gives any."),
    "explain": Field(
        kind="boolean",
        about="Return each model call under `explanation`: the documents shown, the order read off the answer, and the "
        "answer itself. Not in the API of text-embeddings-inference, whose response is an array.",
    ),
    "truncate": Field(kind="boolean", about="text-embeddings-inference: accepted; long texts are always truncated."),
    "truncation_direction": Field(
        kind="string", pattern="^[Rr][Ii][Gg][Hh][Tt]$", about="text-embeddings-inference: only `right` is supported."
    ),
    "instruction": Field(kind="string", about="What counts as relevant, for models that take an instruction."),
    "max_tokens_per_doc": Field(kind="integer", about="Truncate each document to so many tokens; 0: no such limit."),
    "strategy": Field(
        kind="string",
        choices=(*STRATEGIES, *pairwise_strategies.STRATEGIES),
        about="Which passages are shown together, in place of the server's --strategy.",
    ),
    "window_size": Field(kind="integer", least=2, about="Passages per prompt, at most the server's window size."),
    "stride": Field(kind="integer", least=1, about="Ranks that the sliding window moves per step."),
}
"""What any dialect may send; a dialect's clients use their own part of it."""


def read_field(name: str, value: object) -> Any:
    """The value of a field. Raises InvalidRequestError where it is not what the field holds."""
    field = FIELDS[name]
    if field.kind == "boolean" and isinstance(value, bool):
        return value
    if field.kind == "string" and isinstance(value, str):
        if field.choices and value not in field.choices:
            raise InvalidRequestError(f"{name}: expected one of {', '.join(field.choices)}, found {found(value)}")
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON knows one kind of number: 2.0 is 2
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if field.kind == "integer" and is_whole and field.least <= value <= _LARGEST:  # type: ignore[operator]
        return value
    bounds = f" from {field.least} to {_LARGEST}" if field.kind == "integer" else ""
    article = "an" if field.kind == "integer" else "a"
    raise InvalidRequestError(f"{name}: expected {article} {field.kind}{bounds}, found {found(value)}")

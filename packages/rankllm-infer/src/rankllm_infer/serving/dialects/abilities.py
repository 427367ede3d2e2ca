"""What a served reranker accepts in requests, as data (determined by `serving.variants`) and as JSON Schema rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Schema = dict[str, Any]
NULL: Schema = {"type": "null"}
_NO_STRIDE: Schema = {"properties": {"stride": NULL}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Windows that requests may choose for a listwise model."""

    size: int
    """Window size of the server: the maximum, and the default."""
    strategy: str
    """Strategy of the server."""
    sizes: Mapping[str, tuple[int, int]]
    """Strategy -> minimum and maximum window size. Strategies that requests cannot choose are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What requests may ask of a reranker besides ranking documents for a query."""

    models: tuple[str, ...] | None
    """Names that requests may give; None: any."""
    max_documents: int
    scores_pairs: bool
    """True if `/score` is available: pointwise models only."""
    takes_instruction: bool
    raw_scores: Literal["always", "sometimes", "never"]
    """Whether the model returns a score for each document. `sometimes`: depends on the documents and the strategy."""
    strategies: tuple[str, ...] = ()
    """Strategies that requests may choose; none for a pointwise model."""
    windows: Windows | None = None
    """For a listwise model only."""


def window_rules(windows: Windows) -> Iterator[Schema]:
    """Yield the valid combinations of `strategy`, `window_size` and `stride`; one must match.

    JSON Schema cannot compare two numbers: where one limits another, there is a combination for each window size.
    """
    for strategy, (least, most) in windows.sizes.items():
        chosen = _is_strategy(strategy, windows)
        if strategy == "sliding":
            for size in range(least, most + 1):
                yield _all(chosen, _is_size(size, size, windows), {"properties": {"stride": {"maximum": size}}})
        elif strategy == "full":
            yield _all(chosen, {"properties": {"window_size": NULL}}, _NO_STRIDE)
        else:
            yield _all(chosen, _is_size(least, most, windows), _NO_STRIDE)


def full_rule(windows: Windows) -> Schema:
    """Return the rule for how many documents strategy `full` can show in one window."""
    few = {"properties": {key: {"maxItems": windows.size} for key in ("documents", "texts")}}
    others = {"enum": [name for name in windows.sizes if name != "full"]}
    if windows.strategy != "full":
        return {"anyOf": [{"properties": {"strategy": {"enum": [*others["enum"], None]}}}, few]}
    return {"anyOf": [given("strategy", others), few]}


def _all(*schemas: Schema) -> Schema:
    """Merge schemas about different fields into one."""
    properties = {name: held for schema in schemas for name, held in schema["properties"].items()}
    required = [name for schema in schemas for name in schema.get("required", ())]
    return {"properties": properties, **({"required": required} if required else {})}


def _is_size(least: int, most: int, windows: Windows) -> Schema:
    """Return a schema for a window size within bounds; the server's size applies if none is given."""
    bounds: Schema = {"minimum": least, "maximum": most}
    if least <= windows.size <= most:
        return {"properties": {"window_size": bounds | {"type": ["integer", "null"]}}}
    return given("window_size", bounds | {"type": "integer"})


def _is_strategy(name: str, windows: Windows) -> Schema:
    """Return a schema for a strategy; the server's strategy applies if none is given."""
    if name == windows.strategy:
        return {"properties": {"strategy": {"enum": [name, None]}}}
    return given("strategy", {"const": name})


def given(name: str, schema: Schema) -> Schema:
    """Return a schema that requires a field and constrains it."""
    return {"properties": {name: schema}, "required": [name]}


def array_of(items: Schema, about: str = "") -> Schema:
    """Return an array schema."""
    return {"type": "array", "items": items, **({"description": about} if about else {})}


def object_of(properties: Mapping[str, Any], *optional: str) -> Schema:
    """Return an object schema that requires all properties except the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required}

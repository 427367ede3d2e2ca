"""What a served reranker takes in a request, as data (`serving.variants` finds it out) and as rules of JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Schema = dict[str, Any]
NULL: Schema = {"type": "null"}
_NO_STRIDE: Schema = {"properties": {"stride": NULL}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """The windows that requests may choose for a listwise model."""

    size: int
    """Of the server, which is the largest; where a request does not say, it is this one."""
    strategy: str
    """Of the server."""
    sizes: Mapping[str, tuple[int, int]]
    """Strategy -> the smallest and the largest window it takes. Strategies that take none are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What requests may ask of a reranker beside a query and documents."""

    models: tuple[str, ...] | None
    """Names that requests may give; None: any."""
    max_documents: int
    scores_pairs: bool
    """Whether `/score` works: pointwise models only."""
    takes_instruction: bool
    raw_scores: Literal["always", "sometimes", "never"]
    """Whether the model says a score for each document. `sometimes`: it depends on the documents and the strategy."""
    strategies: tuple[str, ...] = ()
    """Those that requests may choose; none of a pointwise model."""
    windows: Windows | None = None
    """Of a listwise model."""


def window_rules(windows: Windows) -> Iterator[Schema]:
    """The ways in which `strategy`, `window_size` and `stride` go together; one must hold.

    JSON Schema cannot compare two numbers: where one bounds another, there is a way for each window.
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
    """How many documents can be shown at once, which strategy `full` does."""
    few = {"properties": {key: {"maxItems": windows.size} for key in ("documents", "texts")}}
    others = {"enum": [name for name in windows.sizes if name != "full"]}
    if windows.strategy != "full":
        return {"anyOf": [{"properties": {"strategy": {"enum": [*others["enum"], None]}}}, few]}
    return {"anyOf": [given("strategy", others), few]}


def _all(*schemas: Schema) -> Schema:
    """One schema of several that speak of different fields."""
    properties = {name: held for schema in schemas for name, held in schema["properties"].items()}
    required = [name for schema in schemas for name in schema.get("required", ())]
    return {"properties": properties, **({"required": required} if required else {})}


def _is_size(least: int, most: int, windows: Windows) -> Schema:
    """Whether a request's windows have a size in these bounds; the server's where it does not say."""
    bounds: Schema = {"minimum": least, "maximum": most}
    if least <= windows.size <= most:
        return {"properties": {"window_size": bounds | {"type": ["integer", "null"]}}}
    return given("window_size", bounds | {"type": "integer"})


def _is_strategy(name: str, windows: Windows) -> Schema:
    """Whether a request is ranked with a strategy, which the server's own is where it does not say."""
    if name == windows.strategy:
        return {"properties": {"strategy": {"enum": [name, None]}}}
    return given("strategy", {"const": name})


def given(name: str, schema: Schema) -> Schema:
    """Whether a field is there and as the schema says."""
    return {"properties": {name: schema}, "required": [name]}


def array_of(items: Schema, about: str = "") -> Schema:
    """An array."""
    return {"type": "array", "items": items, **({"description": about} if about else {})}


def object_of(properties: Mapping[str, Any], *optional: str) -> Schema:
    """An object whose properties are all there, but for the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required}

"""What a served reranker takes in a request, as data (`serving.variants` finds it out) and as rules of JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Schema = dict[str, Any]
NULL: Schema = {"type": "null"}


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
    """What `strategy`, `window_size`, `stride` and the number of documents must be to each other."""
    yield {"anyOf": [{"properties": {"stride": NULL}}, _is_strategy("sliding", windows)]}
    for strategy, (least, most) in windows.sizes.items():
        if (least, most) != (2, windows.size):
            bounds = {"type": "integer", "minimum": least, "maximum": most}
            fits = {"properties": {"window_size": bounds | {"type": ["integer", "null"]}}}
            within = fits if least <= windows.size <= most else given("window_size", bounds)
            yield {"anyOf": [{"not": _is_strategy(strategy, windows)}, within]}
    for size in range(2, windows.size + 1):
        is_larger = [{"properties": {"window_size": {"minimum": size + 1}}}] if size < windows.size else []
        if is_larger:
            yield {"anyOf": [*is_larger, {"properties": {"stride": {"maximum": size}}}]}
        if "full" in windows.sizes:
            yield {"anyOf": [{"not": _is_strategy("full", windows)}, *is_larger, _at_most(size)]}


def _at_most(n: int) -> Schema:
    """Whether a request holds so many documents, whichever of its two fields counts."""
    few = given("documents", {"not": NULL, "maxItems": n})
    return {"anyOf": [few, {"properties": {"documents": NULL, "texts": {"maxItems": n}}}]}


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

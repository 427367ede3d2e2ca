"""Build options records from given values and check them against their declarations: types, choices, bounds."""

from __future__ import annotations

import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

from rankllm_core.config import check_keys, one_of
from rankllm_core.errors import ConfigError
from rankllm_infer.engines.vllm.settings import engine_arguments
from rankllm_infer.option_table import Option, rows_of
from rankllm_infer.ranking import pairwise_strategies
from rankllm_infer.ranking.strategies import TOP_K_STRATEGIES, check_pass_depth

Owner = TypeVar("Owner")
Function = TypeVar("Function", bound=Callable[..., Any])

_TYPE_NAMES: Mapping[Any, str] = {
    bool: "True or False",
    int: "an integer",
    float: "a finite number",
    str: "a string",
    Path: "a Path",
    types.NoneType: "None",
}


def from_given(owner: type[Owner], given: Mapping[str, Any], **more: Any) -> Owner:
    """Build an owner from command-line values; values that are not given keep the owner's defaults.

    more: values of fields that the command line does not provide directly.
    """
    names = [name for name in rows_of(owner) if name not in more and given.get(name) not in (None, ())]
    return owner(**{name: given[name] for name in names}, **more)


class RerankKeywords(TypedDict, total=False):
    """The fields of `RerankOptions` as keywords, for editors and type checkers; each is documented there.

    A test holds names, types and choices to the option table.
    """

    method: Literal["auto", "listwise", "pointwise", "pairwise"]
    engine: Literal["transformers", "vllm", "openai"]
    base_url: str | None
    api_key: str | None
    timeout_s: float
    concurrency: int
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    device: str
    num_gpus: int
    batch_size: int | None
    batch_tokens: int
    compile: bool
    attn_implementation: Literal["auto", "sdpa", "flash_attention_2", "eager"]
    revision: str | None
    trust_remote_code: bool
    vllm_args: tuple[str, ...]
    base_model: str | None
    verify: bool | None
    template: str | Path | None
    instruction: str | None
    use_alpha: bool | None
    use_logits: bool | None
    free_decoding: bool
    decode_top_k: int | None
    context_size: int | None
    max_passage_words: int | None
    window_size: int | None
    stride: int | None
    strategy: Literal["sliding", "full", "top-down", "tournament", "all-pairs", "heapsort", "bubble"] | None
    rank_top_k: int | None
    permutations: int
    num_passes: int
    pass_depth: int | None
    shuffle_candidates: bool
    seed: int
    variable_passages: bool
    system_message: str | None
    few_shot_file: str | Path | None
    num_few_shot_examples: int
    q_max_len: int | None
    p_max_len: int | None
    top_k_candidates: int | None
    identifier_prior: tuple[float, ...] | None
    fuse_weight: float | None
    with_trace: bool


def from_keywords(
    owner: type[Owner], options: Owner | None, *, keywords: Mapping[str, Any], where: str
) -> Owner | None:
    """Return the options, given as one object or as keywords; None if neither is given.

    where: name of the calling function, for messages. Raises ConfigError for an unknown keyword, and if both are given.
    """
    if not keywords:
        return options
    check_keys(keywords, rows_of(owner), where=where)
    if options is not None:
        raise ConfigError(
            f"{where}: {next(iter(keywords))}: cannot be combined with options; make it a field of {owner.__name__}"
        )
    return owner(**keywords)


def shows_options(owner: type, keywords: type) -> Callable[[Function], Function]:
    """Give a function the full signature of its keywords, which `help`, notebooks and API references show.

    owner: the dataclass with their defaults. keywords: the TypedDict with their types.
    """

    def decorate(function: Function) -> Function:
        own = inspect.signature(function)
        named = [parameter for parameter in own.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        types = typing.get_type_hints(keywords)
        options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=row.default, annotation=types[name])
            for name, row in rows_of(owner).items()
        ]
        vars(function)["__signature__"] = own.replace(parameters=[*named, *options])
        return function

    return decorate


def check_field_types(options: Any) -> None:
    """Raise ConfigError naming the first field whose value does not match its declared type.

    options: a dataclass with fields declared as bool, int, float, str, Path, tuples of these, or None. A bool is not
    accepted as a number, an int is accepted as a float, and a float must be finite.
    """
    for name, declared in _declared(type(options)).items():
        value = getattr(options, name)
        if not _fits(value, declared):
            raise ConfigError(f"{name}: expected {_in_words(declared)}, found {type(value).__name__} {value!r:.60}")


@functools.cache
def _declared(kind: type) -> Mapping[str, Any]:
    return typing.get_type_hints(kind)


def _fits(value: object, declared: Any) -> bool:
    if isinstance(declared, types.UnionType):
        return any(_fits(value, choice) for choice in declared.__args__)
    if declared is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value)  # type: ignore[arg-type]
    if declared is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if typing.get_origin(declared) is tuple:
        return isinstance(value, tuple) and all(_fits(item, declared.__args__[0]) for item in value)
    return isinstance(value, declared)


def _in_words(declared: Any) -> str:
    if isinstance(declared, types.UnionType):
        return " or ".join(map(_in_words, declared.__args__))
    if typing.get_origin(declared) is tuple:
        return f"a tuple of {declared.__args__[0].__name__}"
    return _TYPE_NAMES.get(declared, getattr(declared, "__name__", str(declared)))


def check_bounds(options: Any) -> None:
    """Raise ConfigError naming the first option whose value is not one of its choices or is out of bounds."""
    for row in rows_of(type(options)).values():
        value, rule = getattr(options, row.name), row.option
        if value is None:
            continue
        if rule.choices:
            one_of(value, rule.choices, where=row.name)
        if (rule.least is not None and value < rule.least) or (rule.most is not None and value > rule.most):
            # Fractions are reported by the option's spelling, counts by the field's name.
            name, kind = (row.name, "") if rule.most is None else (row.spelled, "a number ")
            raise ConfigError(f"{name}: expected {kind}{row.bounds}, found {value}")
        if rule.above is not None and value <= rule.above:
            raise ConfigError(f"{row.name}: expected {row.bounds} {rule.unit}, found {value}")


def check_combinations(options: Any) -> None:
    """Raise ConfigError if an option has no effect in combination with another, or if a required companion is missing.

    options: RerankOptions.
    """
    if options.vllm_args:
        engine_arguments(options.vllm_args)
    if options.free_decoding:
        options.refuse(("decode_top_k",), why="with --free-decoding")
    if options.strategy not in (None, "sliding"):
        options.refuse(("stride", "variable_passages"), why=f"with --strategy {options.strategy}")
    if options.strategy not in (*TOP_K_STRATEGIES, *pairwise_strategies.SORTING):
        options.refuse(("rank_top_k",), why=f"with --strategy {options.strategy or 'sliding and all-pairs'}")
    check_pass_depth(options.pass_depth, num_passes=options.num_passes, top_k_candidates=options.top_k_candidates)
    if not options.shuffle_candidates and options.permutations == 1:
        options.refuse(("seed",), why="without --shuffle-candidates or --permutations")
    if bool(options.few_shot_file) != bool(options.num_few_shot_examples):
        raise ConfigError("few_shot_file and num_few_shot_examples go together; one was given without the other")


def card_value(rule: Option, value: object) -> object:
    """Return the value of the card's field for an option's value; None leaves the card unchanged."""
    return value if value is None or rule.card_values is None else rule.card_values[0 if value else 1]

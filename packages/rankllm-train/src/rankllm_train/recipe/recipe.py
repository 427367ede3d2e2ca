"""A recipe: every choice of a training run, in sections; read from YAML, changed by options, strict about names."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from rankllm_core.config import did_you_mean, load_yaml, mapping, one_of, parse_yaml, typed
from rankllm_core.errors import ConfigError
from rankllm_core.files import write_text
from rankllm_train.recipe.loop_sections import (
    BatchSection,
    CheckpointSection,
    EvaluationSection,
    LoggingSection,
    OptimSection,
    ScheduleSection,
)
from rankllm_train.recipe.sections import (
    METHODS,
    OBJECTIVES,
    DataSection,
    LoraSection,
    ModelSection,
    ObjectiveSection,
    PromptSection,
)

RECIPE_NAME = "recipe.yaml"
"""The name under which a run's whole recipe is kept beside what it trained."""
_POLYNOMIAL_END = 1e-7
"""The rate at which transformers' polynomial schedule ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All choices of one run."""

    method: str = "listwise"
    """listwise or pointwise."""
    description: str = ""
    """One line for `train recipes`."""
    model: ModelSection = field(default_factory=ModelSection)
    data: DataSection = field(default_factory=DataSection)
    prompt: PromptSection = field(default_factory=PromptSection)
    objective: ObjectiveSection = field(default_factory=ObjectiveSection)
    lora: LoraSection = field(default_factory=LoraSection)
    optim: OptimSection = field(default_factory=OptimSection)
    schedule: ScheduleSection = field(default_factory=ScheduleSection)
    batch: BatchSection = field(default_factory=BatchSection)
    checkpoint: CheckpointSection = field(default_factory=CheckpointSection)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    logging: LoggingSection = field(default_factory=LoggingSection)

    def __post_init__(self) -> None:
        choices = OBJECTIVES[one_of(self.method, METHODS, where="method")]
        if self.objective.name:
            one_of(self.objective.name, choices, where=f"objective.name ({self.method})")
        if self.batch.by_length and self.method != "listwise":
            raise ConfigError("batch.by_length: is for listwise records; pointwise groups are drawn anew in each epoch")
        if self.schedule.lr_scheduler == "polynomial" and self.optim.learning_rate <= _POLYNOMIAL_END:
            raise ConfigError(
                f"optim.learning_rate: the polynomial schedule ends at {_POLYNOMIAL_END}, expected more, found "
                f"{self.optim.learning_rate}; use another schedule.lr_scheduler"
            )
        if self.objective.label_weight and self.objective_name not in ("kl", "margin"):
            raise ConfigError(
                f"objective.label_weight: has no effect with the objective {self.objective_name}; use kl or margin"
            )

    @property
    def objective_name(self) -> str:
        """The objective, or the method's first where none is named."""
        return self.objective.name or OBJECTIVES[self.method][0]

    @property
    def best_metric(self) -> str:
        """What the best model is chosen by: the one named, or nDCG@10 where the objective gives scores."""
        return self.evaluation.metric or ("loss" if self.objective_name == "generation" else "ndcg@10")

    @property
    def keeps_best(self) -> bool:
        """Whether the best model on dev data is kept and is what the run ends with."""
        return bool(self.data.eval) and self.evaluation.keep_best

    def to_dict(self) -> dict[str, object]:
        """The whole recipe as YAML values."""
        return {
            key: {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()}
            if isinstance(value, dict)
            else value
            for key, value in asdict(self).items()
        }

    def changed(self, overrides: Mapping[str, object], *, where: str = "") -> Recipe:
        """The recipe with values replaced by `section.key`; names and types are checked as in a file."""
        nested: dict[str, object] = {}
        for path, value in overrides.items():
            section, _, key = path.partition(".")
            if not key:
                nested[section] = value
                continue
            inner = nested.setdefault(section, {})
            if isinstance(inner, dict):
                inner[key] = value
        return _merged(self, nested, where=where)


SECTIONS: Mapping[str, type] = {
    f.name: f.default_factory  # type: ignore[misc]
    for f in fields(Recipe)
    if f.name not in ("method", "description")
}


def recipe_names() -> tuple[str, ...]:
    """The recipes that ship with rankllm."""
    folder = resources.files("rankllm_train") / "recipes"
    return tuple(sorted(i.name.removesuffix(".yaml") for i in folder.iterdir() if i.name.endswith(".yaml")))


def recipe_text(name: str) -> str:
    """The YAML of a shipped recipe, comments included. Raises ConfigError where there is none of that name."""
    if name not in recipe_names():
        raise ConfigError(f"{name}: no such recipe{did_you_mean(name, recipe_names())}")
    return (resources.files("rankllm_train") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A shipped recipe by name, or a YAML file. Raises ConfigError on an unknown key or a value of another type."""
    name = str(name_or_path)
    if name in recipe_names() and not Path(name).is_file():
        values = mapping(parse_yaml(recipe_text(name), where=name), where=name)
    elif Path(name).exists():
        values = load_yaml(name)
    else:
        hint = did_you_mean(name, recipe_names())
        raise ConfigError(f"{name}: no such recipe, neither a file nor a shipped one{hint}")
    return _merged(Recipe(), values, where=f"{name}: ")


def save_recipe(recipe: Recipe, folder: str | Path) -> None:
    """Write the whole recipe into a folder, so that a run can be repeated from it."""
    with write_text(Path(folder) / RECIPE_NAME) as stream:
        yaml.safe_dump(recipe.to_dict(), stream, sort_keys=False, allow_unicode=True, width=120)


def recipe_differences(old: Recipe, new: Recipe) -> dict[str, tuple[object, object]]:
    """`section.key` -> (old, new) of every value that differs."""
    before, after = _flat(old), _flat(new)
    return {path: (before[path], after[path]) for path in before if before[path] != after[path]}


def parse_setting(text: str) -> tuple[str, object]:
    """`section.key=value` as `--set` takes it, its value read as YAML."""
    path, equals, value = text.partition("=")
    if not equals or "." not in path:
        raise ConfigError(f"--set {text}: expected section.key=value, such as optim.learning_rate=1e-5")
    try:
        return path.strip(), parse_yaml(value, where=f"--set {path}", is_one_line=True)
    except ConfigError:
        return path.strip(), value  # text with a colon, a bracket, ...


def _flat(recipe: Recipe) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in recipe.to_dict().items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def _merged(recipe: Recipe, values: Mapping[str, object], *, where: str) -> Recipe:
    allowed = {f.name for f in fields(Recipe)}
    for key in values:
        if key not in allowed:
            raise ConfigError(f"{where}{key}: unknown key{did_you_mean(key, sorted(allowed))}")
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key in SECTIONS:
            given = mapping(value, where=f"{where}{key}")
            changes[key] = _section(getattr(recipe, key), given, where=where, section=key)
        else:
            changes[key] = typed(value, str, where=f"{where}{key}")
    try:
        return replace(recipe, **changes)
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from None


def _section(current: Any, values: Mapping[str, object], *, where: str, section: str) -> Any:
    kinds = {f.name: str(f.type) for f in fields(current)}
    for key in values:
        if key not in kinds:
            raise ConfigError(f"{where}{section}.{key}: unknown key{did_you_mean(key, kinds)}")
    changes = {key: _value(value, kinds[key], where=f"{where}{section}.{key}") for key, value in values.items()}
    try:
        return replace(current, **changes)
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from None


def _value(value: object, kind: str, *, where: str) -> object:
    """The value as its field's type says."""
    if kind.endswith(" | None"):
        return None if value is None else _value(value, kind.removesuffix(" | None"), where=where)
    if kind == "float":
        return _number(value, where=where)
    if kind == "tuple[str, ...]":
        items = value.split(",") if isinstance(value, str) else typed(value, (list, tuple), where=where)
        names = tuple(str(typed(item, str, where=where)).strip() for item in items)  # type: ignore[attr-defined]
        return () if names == ("",) else names  # `--report-to ""` is none; `a,,b` is for its section to refuse
    if kind == "str" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # YAML reads `every: 500` as a number
    return typed(value, {"str": str, "int": int, "bool": bool}[kind], where=where)


def _number(value: object, *, where: str) -> float:
    if isinstance(value, str):
        # YAML reads 5e-6, without a point, as a string.
        with contextlib.suppress(ValueError):
            value = float(value)
    try:
        return float(typed(value, (int, float), where=where))  # type: ignore[arg-type]
    except OverflowError:
        raise ConfigError(f"{where}: expected a finite number, found one of more than 300 digits") from None

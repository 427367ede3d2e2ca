"""Recipe: all settings of a training run in sections, read from YAML, overridden by options, strictly validated."""

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
"""File name of the full recipe saved next to a trained model."""
_POLYNOMIAL_END = 1e-7
"""Final learning rate of the polynomial schedule in transformers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All settings of a training run."""

    method: str = "listwise"
    """`listwise` or `pointwise`."""
    description: str = ""
    """One-line description shown by `train recipes`."""
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
            raise ConfigError(
                "batch.by_length: applies to listwise records only; pointwise groups are resampled in each epoch"
            )
        if self.schedule.lr_scheduler == "polynomial" and self.optim.learning_rate <= _POLYNOMIAL_END:
            raise ConfigError(
                f"optim.learning_rate: expected more than {_POLYNOMIAL_END}, where the polynomial schedule ends, found "
                f"{self.optim.learning_rate}; use another schedule.lr_scheduler"
            )
        if self.objective.label_weight and self.objective_name not in ("kl", "margin"):
            raise ConfigError(
                f"objective.label_weight: has no effect with the objective {self.objective_name}; use kl or margin"
            )

    @property
    def objective_name(self) -> str:
        """The configured objective, or the method's first objective if none is set."""
        return self.objective.name or OBJECTIVES[self.method][0]

    @property
    def best_metric(self) -> str:
        """Metric that selects the best model: the configured one, or nDCG@10 if the objective produces scores."""
        return self.evaluation.metric or ("loss" if self.objective_name == "generation" else "ndcg@10")

    @property
    def keeps_best(self) -> bool:
        """Whether the output is the model that is best on the dev data."""
        return bool(self.data.eval) and self.evaluation.keep_best

    def to_dict(self) -> dict[str, object]:
        """Return the full recipe as YAML values."""
        return {
            key: {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()}
            if isinstance(value, dict)
            else value
            for key, value in asdict(self).items()
        }

    def changed(self, overrides: Mapping[str, object], *, where: str = "") -> Recipe:
        """Return a copy with values replaced, by `section.key`; names and types are checked as in a file."""
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
    """Return the names of the bundled recipes."""
    folder = resources.files("rankllm_train") / "recipes"
    return tuple(sorted(i.name.removesuffix(".yaml") for i in folder.iterdir() if i.name.endswith(".yaml")))


def recipe_text(name: str) -> str:
    """Return the YAML of a bundled recipe, comments included. Raises ConfigError for an unknown name."""
    if name not in recipe_names():
        raise ConfigError(f"{name}: no such recipe{did_you_mean(name, recipe_names())}")
    return (resources.files("rankllm_train") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Load a bundled recipe by name, or a YAML file. Raises ConfigError on an unknown key or a value of the wrong
    type."""
    name = str(name_or_path)
    if name in recipe_names() and not Path(name).is_file():
        values = mapping(parse_yaml(recipe_text(name), where=name), where=name)
    elif Path(name).exists():
        values = load_yaml(name)
    else:
        hint = did_you_mean(name, recipe_names())
        raise ConfigError(f"{name}: no such recipe; expected a file or the name of a bundled recipe{hint}")
    return _merged(Recipe(), values, where=f"{name}: ")


def save_recipe(recipe: Recipe, folder: str | Path) -> None:
    """Write the full recipe into a folder, so that the run can be repeated."""
    with write_text(Path(folder) / RECIPE_NAME) as stream:
        yaml.safe_dump(recipe.to_dict(), stream, sort_keys=False, allow_unicode=True, width=120)


def recipe_differences(old: Recipe, new: Recipe) -> dict[str, tuple[object, object]]:
    """Map `section.key` to (old, new) for every value that differs."""
    before, after = _flat(old), _flat(new)
    return {path: (before[path], after[path]) for path in before if before[path] != after[path]}


def parse_setting(text: str) -> tuple[str, object]:
    """Parse the argument of `--set`, `section.key=value`, with the value read as YAML."""
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
    """Convert a value to the type of its field."""
    if kind.endswith(" | None"):
        return None if value is None else _value(value, kind.removesuffix(" | None"), where=where)
    if kind == "float":
        return _number(value, where=where)
    if kind == "tuple[str, ...]":
        items = value.split(",") if isinstance(value, str) else typed(value, (list, tuple), where=where)
        names = tuple(str(typed(item, str, where=where)).strip() for item in items)  # type: ignore[attr-defined]
        return () if names == ("",) else names  # `--report-to ""` means none; the section rejects `a,,b`
    if kind == "str" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # YAML reads `every: 500` as a number
    return typed(value, {"str": str, "int": int, "bool": bool}[kind], where=where)


def _number(value: object, *, where: str) -> float:
    if isinstance(value, str):
        # YAML reads 5e-6, without a decimal point, as a string.
        with contextlib.suppress(ValueError):
            value = float(value)
    try:
        return float(typed(value, (int, float), where=where))  # type: ignore[arg-type]
    except OverflowError:
        raise ConfigError(f"{where}: expected a finite number, found one of more than 300 digits") from None

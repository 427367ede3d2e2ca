"""The option table: an option is declared once, as a field of its owner, and everything else is derived from there.

An owner is a frozen dataclass (`RerankOptions`, the inputs and outputs of a command). `option(...)` gives its field the
flags, the group, the bounds and what the option applies to; the annotation is its type, the docstring below it is its
help text. Command line, checks, error messages, a run's fingerprint and docs/rerank-options.md are read from the rows.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import sys
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rankllm_core.errors import RankLLMError

Group = Literal[
    "Input",
    "Model",
    "Engine",
    "Engine (transformers)",
    "Engine (vLLM)",
    "Engine (OpenAI-compatible server)",
    "Prompt",
    "Ranking",
    "Output",
    "Server",
]
"""A heading of `--help` and of the reference page."""
GROUPS: tuple[Group, ...] = typing.get_args(Group)
ENGINE_GROUPS = GROUPS[2:6]
"""Options of several engines, then those of one alone."""
ENGINES = ("transformers", "vllm", "openai")
LOCAL = ("transformers", "vllm")
ALL_METHODS = ("generation", "FIRST", "pointwise", "pairwise")
"""How a model ranks: a listwise one generates a permutation or is read by its first token, a pointwise one scores
passages, a pairwise one compares them."""
LISTWISE = ("generation", "FIRST")

_METAVARS: Mapping[Any, str] = {int: "N", float: "NUMBER", Path: "FILE", str: "TEXT"}

Effect = Literal["none", "option", "card", "content", "loaded"]
"""How an option affects results, and so a run's fingerprint: not at all; by its own value; through a field of the card,
which is compared as a whole; by what a file, model or server is, not by its name; by what the loaded model reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """What a field's declaration says beyond name, type, default and help text."""

    flags: tuple[str, ...]
    """On the command line: the option's name, then its aliases. Empty: for Python alone."""
    group: Group
    effect: Effect
    """By default through the card where it overrides a field of the card, else by its own value."""
    card: str | None
    """The field of the card that it overrides."""
    card_values: tuple[str, str] | None
    """Of a switch: the values of the card's field for on and off."""
    methods: tuple[str, ...]
    engines: tuple[str, ...]
    choices: tuple[str, ...]
    least: float | None
    most: float | None
    above: float | None
    unit: str
    """Of the number, for an error message."""
    metavar: str
    """Stands for the value in help texts; empty: derived from the type."""
    default_text: str
    """Says in words what the default stands for; empty: the default itself."""
    is_text: bool
    """Whether the command line takes a text that the command turns into the value, such as a file's name."""
    set_by: str
    """What sets the field in place of an option of its own: another option, or a variable of the environment."""


def option(
    default: Any,
    *flags: str,
    group: Group,
    effect: Effect | None = None,
    card: str | None = None,
    card_values: tuple[str, str] | None = None,
    methods: tuple[str, ...] = ALL_METHODS,
    engines: tuple[str, ...] = ENGINES,
    choices: tuple[str, ...] = (),
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    unit: str = "",
    metavar: str = "",
    default_text: str = "",
    is_text: bool = False,
    set_by: str = "",
    is_secret: bool = False,
) -> Any:
    """Return the dataclass field of an option, required with MISSING. For the arguments see `Option`."""
    row = Option(
        flags=flags,
        group=group,
        effect=effect or ("card" if card else "option"),
        card=card,
        card_values=card_values,
        methods=methods,
        engines=engines,
        choices=choices,
        least=least,
        most=most,
        above=above,
        unit=unit,
        metavar=metavar,
        default_text=default_text,
        is_text=is_text,
        set_by=set_by,
    )
    return dataclasses.field(default=default, repr=not is_secret, metadata={"option": row})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An option of the table: a field of an owner with all that is known of it."""

    owner: type
    name: str
    type: Any
    default: Any
    """MISSING: the option is required."""
    option: Option
    text: str = ""
    """Help text of a command to which the docstring below the field does not apply."""
    spelled: str = field(init=False)
    """The option as a user writes it; a field without a flag by its own name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "spelled", self.option.flags[0] if self.option.flags else self.name)

    @property
    def off(self) -> str:
        """The `--no-` form of a switch."""
        return "--no-" + self.spelled.removeprefix("--")

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types of its values, None left out."""
        if self.is_repeatable:
            return typing.get_args(self.type)[:1]
        return tuple(kind for kind in typing.get_args(self.type) or (self.type,) if kind is not type(None))

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off, and takes no value."""
        return self.kinds == (bool,)

    @property
    def is_repeatable(self) -> bool:
        """Whether it may be given several times."""
        return typing.get_origin(self.type) is tuple

    @property
    def help(self) -> str:
        """Its help text: the docstring below the field, which is read from the source when it is first asked for."""
        if self.text:
            return self.text
        declared_in = next(owner for owner in self.owner.__mro__ if self.name in inspect.get_annotations(owner))
        return _docstrings(declared_in.__module__)[declared_in.__name__, self.name]

    @property
    def default_text(self) -> str:
        """The default for a person to read; empty where there is none to speak of."""
        if self.option.default_text or self.default is MISSING:
            return self.option.default_text
        if self.default is None:
            return "from the card" if self.option.card else ""
        if self.is_switch:
            return "on" if self.default else ""
        if isinstance(self.default, float):
            return f"{self.default:g}"
        return str(self.default) if self.default != () else ""

    @property
    def bounds(self) -> str:
        """The bounds of its number, for a person to read; empty where there are none."""
        rule = self.option
        if rule.least is not None and rule.most is not None:
            return f"from {rule.least:g} to {rule.most:g}"
        if rule.least is not None:
            return f"at least {rule.least:g}"
        return "" if rule.above is None else f"more than {rule.above:g}"

    @property
    def methods_text(self) -> str:
        """The methods it is restricted to, for a person to read; empty where it applies to all."""
        if self.option.methods == ALL_METHODS:
            return ""
        names = list(self.option.methods)
        if set(LISTWISE) <= set(names):
            names = ["listwise", *(name for name in names if name not in LISTWISE)]
        return f"{', '.join(names[:-1])}{' and ' if names[:-1] else ''}{names[-1]} only"

    @property
    def engines_text(self) -> str:
        """The engines it is restricted to, for a person to read; empty where it applies to all."""
        if self.option.engines == ENGINES:
            return ""
        if self.option.engines == LOCAL:
            return "not with --engine openai"
        return f"--engine {' or '.join(self.option.engines)} only"

    @property
    def scope(self) -> str:
        """Methods and engines it is restricted to."""
        return "; ".join(filter(None, (self.methods_text, self.engines_text)))

    @property
    def metavar(self) -> str:
        """Stands for its value; empty for a switch."""
        if self.is_switch:
            return ""
        choices = f"[{'|'.join(self.option.choices)}]" if self.option.choices else ""
        return self.option.metavar or choices or _METAVARS[self.kinds[0]]

    @property
    def spelling(self) -> str:
        """How it is written, with its aliases and its value."""
        flags = ", ".join(self.option.flags)
        return f"{flags} / {self.off}" if self.is_switch else f"{flags} {self.metavar}"

    @property
    def is_on_the_command_line(self) -> bool:
        """Whether an option of its own sets it."""
        return not self.option.set_by


@functools.cache
def rows_of(owner: type) -> Mapping[str, Row]:
    """The rows that a dataclass declares, by the names of their fields; inherited ones come last."""
    types = typing.get_type_hints(owner)
    own_first = sorted(dataclasses.fields(owner), key=lambda own: own.name not in inspect.get_annotations(owner))
    return {
        declared.name: Row(
            owner=owner,
            name=declared.name,
            type=types[declared.name],
            default=declared.default,
            option=declared.metadata["option"],
        )
        for declared in own_first
        if "option" in declared.metadata
    }


def changed(row: Row, *, text: str = "", default: Any = ..., **changes: Any) -> Row:
    """The row as another command has it.

    text: its help text there. default: MISSING makes it required there, None optional. changes: fields of its `Option`.
    """
    return dataclasses.replace(
        row,
        text=text or row.text,
        default=row.default if default is ... else default,
        option=dataclasses.replace(row.option, **changes),
    )


@functools.cache
def _docstrings(module: str) -> Mapping[tuple[str, str], str]:
    """(class, field) -> the docstring below the field, on one line, as a module's source has them."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except OSError:
        raise RankLLMError(
            f"{module}: the source file that holds the help texts is missing; reinstall rankllm-infer"
        ) from None
    return {
        (owner.name, str(declared.target.id)): " ".join(text.split())
        for owner in tree.body
        if isinstance(owner, ast.ClassDef)
        for declared, below in itertools.pairwise(owner.body)
        if isinstance(declared, ast.AnnAssign) and isinstance(declared.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
        for text in [str(below.value.value)]
    }

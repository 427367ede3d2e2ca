"""Option table: each option is declared once, as a dataclass field, and everything else is derived from it.

An owner is a frozen dataclass (`RerankOptions`, the inputs and outputs of a command). `option(...)` gives a field its
flags, group, bounds and scope; the annotation is its type and the docstring below it is its help text. The command
line, checks, error messages, run fingerprints and docs/rerank-options.md are all generated from these rows.
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
"""Heading in `--help` and on the reference page."""
GROUPS: tuple[Group, ...] = typing.get_args(Group)
ENGINE_GROUPS = GROUPS[2:6]
"""Options shared by several engines, then those of a single engine."""
ENGINES = ("transformers", "vllm", "openai")
LOCAL = ("transformers", "vllm")
ALL_METHODS = ("generation", "FIRST", "pointwise", "pairwise")
"""Ranking methods: listwise models generate a permutation or rank by first-token logits (FIRST), pointwise models score
passages, pairwise models compare two passages."""
LISTWISE = ("generation", "FIRST")

_METAVARS: Mapping[Any, str] = {int: "N", float: "NUMBER", Path: "FILE", str: "TEXT"}

Effect = Literal["none", "option", "card", "content", "loaded"]
"""How an option affects results, and therefore a run's fingerprint: not at all; by its own value; through a card field
(the card is compared as a whole); by the contents of a file, model or server rather than its name; by what the loaded
model reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """Metadata of an option beyond its name, type, default and help text."""

    flags: tuple[str, ...]
    """Command-line name, then aliases. Empty: available in Python only."""
    group: Group
    effect: Effect
    """Default: "card" if the option overrides a field of the card, else "option"."""
    card: str | None
    """Card field that the option overrides."""
    card_values: tuple[str, str] | None
    """For a switch: values of the card field for on and off."""
    methods: tuple[str, ...]
    engines: tuple[str, ...]
    choices: tuple[str, ...]
    least: float | None
    most: float | None
    above: float | None
    unit: str
    """Unit of the number, for error messages."""
    metavar: str
    """Placeholder for the value in help texts; empty: derived from the type."""
    default_text: str
    """Description of the default; empty: the default itself."""
    is_text: bool
    """True if the command line takes a string, such as a file name, that the command converts to the value."""
    set_by: str
    """What sets the field when it has no option of its own: another option or an environment variable."""


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
    """Return an option's dataclass field; a default of MISSING makes it required. Arguments: see `Option`."""
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
    """Row in the option table: an owner's field with its metadata."""

    owner: type
    name: str
    type: Any
    default: Any
    """MISSING: the option is required."""
    option: Option
    text: str = ""
    """Help text that replaces the docstring of the field."""
    spelled: str = field(init=False)
    """Option as typed by the user; a field without flags is spelled by its name."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "spelled", self.option.flags[0] if self.option.flags else self.name)

    @property
    def off(self) -> str:
        """The `--no-` form of a switch."""
        return "--no-" + self.spelled.removeprefix("--")

    @property
    def kinds(self) -> tuple[Any, ...]:
        """Types of the value, without None."""
        if self.is_repeatable:
            return typing.get_args(self.type)[:1]
        return tuple(kind for kind in typing.get_args(self.type) or (self.type,) if kind is not type(None))

    @property
    def is_switch(self) -> bool:
        """True if the option takes no value and is on or off."""
        return self.kinds == (bool,)

    @property
    def is_repeatable(self) -> bool:
        """True if the option may be repeated."""
        return typing.get_origin(self.type) is tuple

    @property
    def help(self) -> str:
        """Help text: the docstring below the field, read from the source on first use."""
        if self.text:
            return self.text
        declared_in = next(owner for owner in self.owner.__mro__ if self.name in inspect.get_annotations(owner))
        return _docstrings(declared_in.__module__)[declared_in.__name__, self.name]

    @property
    def default_text(self) -> str:
        """Default as shown to users; empty if there is nothing to show."""
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
        """Bounds of the number as shown to users; empty if there are none."""
        rule = self.option
        if rule.least is not None and rule.most is not None:
            return f"from {rule.least:g} to {rule.most:g}"
        if rule.least is not None:
            return f"at least {rule.least:g}"
        return "" if rule.above is None else f"more than {rule.above:g}"

    @property
    def methods_text(self) -> str:
        """Methods that the option is restricted to, as shown to users; empty if it applies to all."""
        if self.option.methods == ALL_METHODS:
            return ""
        names = list(self.option.methods)
        if set(LISTWISE) <= set(names):
            names = ["listwise", *(name for name in names if name not in LISTWISE)]
        return f"{', '.join(names[:-1])}{' and ' if names[:-1] else ''}{names[-1]} only"

    @property
    def engines_text(self) -> str:
        """Engines that the option is restricted to, as shown to users; empty if it applies to all."""
        if self.option.engines == ENGINES:
            return ""
        if self.option.engines == LOCAL:
            return "not with --engine openai"
        return f"--engine {' or '.join(self.option.engines)} only"

    @property
    def scope(self) -> str:
        """Methods and engines that the option is restricted to."""
        return "; ".join(filter(None, (self.methods_text, self.engines_text)))

    @property
    def metavar(self) -> str:
        """Placeholder for the value; empty for a switch."""
        if self.is_switch:
            return ""
        choices = f"[{'|'.join(self.option.choices)}]" if self.option.choices else ""
        return self.option.metavar or choices or _METAVARS[self.kinds[0]]

    @property
    def spelling(self) -> str:
        """Flags with aliases and placeholder, as shown in help."""
        flags = ", ".join(self.option.flags)
        return f"{flags} / {self.off}" if self.is_switch else f"{flags} {self.metavar}"

    @property
    def is_on_the_command_line(self) -> bool:
        """True if the field has a command-line option of its own."""
        return not self.option.set_by


@functools.cache
def rows_of(owner: type) -> Mapping[str, Row]:
    """Return the rows that a dataclass declares, keyed by field name; inherited rows come last."""
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
    """Return a copy of a row, adapted to another command.

    text: help text for that command. default: MISSING makes the option required, None optional. changes: fields of its
    `Option`.
    """
    return dataclasses.replace(
        row,
        text=text or row.text,
        default=row.default if default is ... else default,
        option=dataclasses.replace(row.option, **changes),
    )


@functools.cache
def _docstrings(module: str) -> Mapping[tuple[str, str], str]:
    """Map (class, field) to the docstring below the field, on one line, parsed from a module's source."""
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

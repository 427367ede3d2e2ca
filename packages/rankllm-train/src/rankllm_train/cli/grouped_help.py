"""Help that lists the options of a command under headings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import click

REST = "Other"
"""Heading of the options that no group names: those of click itself, such as --help."""
RECIPE_GROUPS = {
    "Recipe": ("recipe", "settings"),
    "Model": ("recipe__model__*", "bf16", "fp16"),
    "Data": ("recipe__data__*",),
    "Prompt": ("recipe__prompt__*", "input_format"),
    "Objective": ("recipe__objective__*",),
    "LoRA": ("recipe__lora__*",),
    "Optimizer": ("recipe__optim__*",),
    "Schedule": ("recipe__schedule__*",),
    "Batches and memory": ("recipe__batch__*",),
    "Evaluation": ("recipe__evaluation__*",),
    "Output": ("recipe__checkpoint__*", "resume_from", "overwrite"),
    "Logging": ("recipe__logging__*", "with_tracking"),
}
"""Heading of the help -> its parameters, for commands that take recipe options."""


class GroupedCommand(click.Command):
    """Command whose help lists its options under headings.

    groups: heading -> names of parameters, or patterns such as `recipe__model__*`; headings appear in this order.
    """

    def __init__(self, *arguments: Any, groups: Mapping[str, Sequence[str]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.groups = groups

    def heading_of(self, name: str) -> str:
        """Return the heading of the first group that contains a parameter."""
        for heading, patterns in self.groups.items():
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                return heading
        return REST

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one section per group; within a group, options keep the order of their declaration."""
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (*self.groups, REST)}
        for parameter in self.get_params(ctx):
            record = None if isinstance(parameter, click.Argument) else parameter.get_help_record(ctx)
            if record is not None and parameter.name is not None:
                sections[self.heading_of(parameter.name)].append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

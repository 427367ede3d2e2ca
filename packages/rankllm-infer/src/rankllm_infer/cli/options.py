"""What the subcommands share: options that are accepted and ignored."""

from __future__ import annotations

from collections.abc import Callable

import click
from click.decorators import FC

from rankllm_infer.cli import say


def ignored(name: str, *, takes_value: bool) -> Callable[[FC], FC]:
    """A hidden option of the originals that has no effect here: it is accepted, with one warning.

    name: in kebab-case, with its dashes. takes_value: False for a switch, which gets a `--no-` form as well.
    """

    def warn(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
        if value is not None:
            say(f"Warning: {name} has no effect in rankllm and is ignored")

    if takes_value:
        return click.option(name, type=click.UNPROCESSED, hidden=True, expose_value=False, callback=warn)
    switch = f"{name}/--no-{name.removeprefix('--')}"
    return click.option(switch, default=None, hidden=True, expose_value=False, callback=warn)

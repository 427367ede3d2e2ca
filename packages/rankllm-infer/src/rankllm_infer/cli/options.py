"""What the subcommands share: options that are accepted and ignored, and checks of the names of outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
from click.decorators import FC

from rankllm_core.errors import RankLLMError
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


def check_output(path: str | Path, overwrite: bool) -> None:
    """Raise RankLLMError where writing `path` would replace a file without leave, or cannot succeed."""
    path = Path(path)
    if path.is_dir():
        raise RankLLMError(f"{path}: is a folder, expected the name of a file to write")
    if path.is_file() and not overwrite:
        raise RankLLMError(f"{path}: exists; use --overwrite to replace it, or another name")


def refuse_same_file(source: str | Path, target: str | Path) -> None:
    """Raise RankLLMError where the output is the input, which writing would destroy."""
    source, target = Path(source), Path(target)
    if source.exists() and target.exists() and source.samefile(target):
        raise RankLLMError(f"{target}: is the input as well as the output; write to another name")

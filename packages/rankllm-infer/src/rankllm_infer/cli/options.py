"""What the subcommands share: options that are accepted and ignored, and checks of output names."""

from __future__ import annotations

import os
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
    """Raise RankLLMError where writing `path` cannot succeed, or would replace a file without leave.

    Called before the work begins, so that nothing is computed that cannot be kept.
    """
    path = Path(path)
    if path.is_dir():
        raise RankLLMError(f"{path}: is a folder, expected the name of a file to write")
    if path.exists() and not path.is_file():
        raise RankLLMError(f"{path}: is a device or a pipe, expected the name of a file to write")
    if path.exists() and not overwrite:
        raise RankLLMError(f"{path}: exists; use --overwrite to replace it, or another name")
    if path.suffix == ".xz":
        raise RankLLMError(f"{path}: writing .xz is not supported; give it a .gz name, or none of a packed file")
    # Folders that are missing are made when the file is written, in the nearest one that is there.
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise RankLLMError(f"{path}: cannot be written ({folder} is not a folder)")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RankLLMError(f"{path}: cannot be written (no permission to write in {folder})")


def refuse_same_file(source: str | Path, target: str | Path) -> None:
    """Raise RankLLMError where the output is the input, which writing would destroy."""
    source, target = Path(source), Path(target)
    if source.exists() and target.exists() and source.samefile(target):
        raise RankLLMError(f"{target}: is the input as well as the output; write to another name")

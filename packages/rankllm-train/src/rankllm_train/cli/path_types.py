"""Types of options and arguments that name a file, a folder or a model: an empty name is wrong usage.

An empty name is most often an unset shell variable. Read as a path, it would mean the current folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class NonEmptyPath(click.Path):
    """A path that is not empty."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail with an error that names the option."""
        if not str(value):
            self.fail("expected a path, found an empty one", param, ctx)
        return super().convert(value, param, ctx)


class NonEmptyName(click.types.StringParamType):
    """A name or a path that is not empty."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text, or fail with an error that names the option."""
        if not str(value):
            self.fail("expected a name or a path, found an empty one", param, ctx)
        return super().convert(value, param, ctx)


PATH = NonEmptyPath(path_type=Path)
"""A file or a folder, as a `Path`."""
NAME = NonEmptyName()
"""A file, a folder, or a name known elsewhere (of a model, a data set, a template), as text."""

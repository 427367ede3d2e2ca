"""Shared by both command lines: a lazy command group, parameter types, options and program exit.

Needs click, which both programs install but rankllm-core alone does not: no other core module imports this one.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NoReturn

import click

from rankllm_core.errors import ConfigError, RankLLMError, for_terminal, one_line

EXIT_USER_ERROR, EXIT_SOME_FAILED, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 3, 130, 143

SETTINGS: dict[str, Any] = {
    # Options may also be spelled with underscores, as in the original projects' commands.
    "token_normalize_func": lambda token: token.replace("_", "-"),
    "help_option_names": ["-h", "--help"],
    "max_content_width": 120,
}
"""click's context settings for every command."""


class LazyGroup(click.Group):
    """Command group that imports a command's module only to run it, which keeps `--help` fast.

    package: contains one module per command, with the command as `command`. summaries: command -> one-line help.
    modules: command -> module of the package that contains several commands under their own names.
    originals: module with the names that rank_llm and tevatron give our commands and options, as `ORIGINALS`; imported
    only if a command line contains an unknown word.
    """

    def __init__(
        self,
        *arguments: Any,
        package: str,
        summaries: Mapping[str, str],
        modules: Mapping[str, str] | None = None,
        originals: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.originals = originals
        self.package = package
        self.summaries = summaries
        self.modules = modules or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of a typical workflow."""
        return list(self.summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module and return its command."""
        name = cmd_name.replace("_", "-")
        if name not in self.summaries:
            return None
        own = name.replace("-", "_")
        module, attribute = (self.modules[name], own) if name in self.modules else (own, "command")
        command = getattr(importlib.import_module(f"{self.package}.{module}"), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{self.package}.{module}.{attribute} is not a click command")
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put our words in the place of an original's command."""
        is_ours = not args or args[0].replace("_", "-") in self.summaries or args[0] in ctx.help_option_names
        has_two_words = len(args) > 1 and not args[1].startswith("-")
        if self.originals is not None and (has_two_words or not is_ours):
            from rankllm_core.original_options import adapt_command

            try:
                args = adapt_command(args, importlib.import_module(self.originals).ORIGINALS)
            except ConfigError as error:
                raise click.UsageError(str(error), ctx=ctx) from None
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and put our words in the place of the originals' options."""
        name, command, rest = super().resolve_command(ctx, args)
        if self.originals is None or command is None or isinstance(command, click.Group):
            return name, command, rest
        own = _own_options(command)
        if _holds_foreign_words(own, rest):
            from rankllm_core.original_options import adapt_options

            table = importlib.import_module(self.originals).ORIGINALS.options.get(name or "")
            try:
                rest, warnings = adapt_options(rest, own, table)
            except ConfigError as error:
                raise click.UsageError(str(error), ctx=ctx) from None
            if os.environ.get("RANK", "0") == "0":  # one of the processes of a training run says it
                for warning in warnings:
                    say(warning)
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.summaries.items()))


class NonEmptyPath(click.Path):
    """Non-empty path. An empty one most often comes from an unset shell variable and does not mean the current
    folder."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or fail with an error that names the option."""
        if not str(value):
            self.fail("expected a path, found an empty one", param, ctx)
        return super().convert(value, param, ctx)


class NonEmptyName(click.types.StringParamType):
    """Non-empty name or path."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text, or fail with an error that names the option."""
        if not str(value):
            self.fail("expected a name or a path, found an empty one", param, ctx)
        return super().convert(value, param, ctx)


PATH = NonEmptyPath(path_type=Path)
"""File or folder, as a `Path`."""
NAME = NonEmptyName()
"""File, folder or the name of a model, data set or template, as text."""


def _own_options(command: click.Command) -> dict[str, Literal["switch", "value"]]:
    """Map the names of a command's options to what follows them."""
    own: dict[str, Literal["switch", "value"]] = {"--help": "switch"}
    for option in command.params:
        if isinstance(option, click.Option):
            own |= dict.fromkeys((*option.opts, *option.secondary_opts), "switch" if option.is_flag else "value")
    return own


def _holds_foreign_words(own: Mapping[str, object], arguments: Sequence[str]) -> bool:
    """Return whether there is an undeclared option, or a value that only the originals accept.

    Such values are true and false after a switch, and -1 for all.
    """
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if (value if equals else argument).lower() in ("true", "false", "-1"):
            return True
        if name.startswith("--") and name != "--" and name.replace("_", "-") not in own:
            return True
    return False


def say(line: str) -> None:
    """Print a line for the user on standard error; standard output is reserved for results."""
    click.echo(for_terminal(line), err=True)


def run_program(group: click.Group) -> NoReturn:
    """Run a program and end the process. User errors are printed as one line; bugs keep their traceback."""
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # File names that are not UTF-8 are printed with escapes instead of raising, as on standard error.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = group.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except RankLLMError as error:
        say(one_line(f"Error: {error}"))
        sys.exit(EXIT_USER_ERROR)
    except (KeyboardInterrupt, click.Abort) as error:
        if isinstance(error.__cause__, EOFError):
            raise error.__cause__ from None  # click assumes Ctrl-D at a prompt, but there are no prompts
        say("Stopped.")
        sys.exit(EXIT_INTERRUPTED)
    except _TerminatedError:
        say("Stopped.")
        sys.exit(EXIT_TERMINATED)
    except BrokenPipeError:
        # The reader of standard output has exited (`| head`): nothing more to print or flush.
        sys.stderr.close()
        sys.exit(EXIT_USER_ERROR)
    except OSError as error:
        if error.filename is None:
            raise
        # Forbidden by a name, a disk or a permission, wherever it occurs first.
        say(one_line(f"Error: {error.filename!s}: {error.strerror}"))
        sys.exit(EXIT_USER_ERROR)
    sys.exit(code if isinstance(code, int) else 0)


class _TerminatedError(BaseException):
    """Raised on SIGTERM. Like KeyboardInterrupt, it is not caught by error handlers."""


def _terminate(number: int, frame: FrameType | None) -> None:
    # `timeout` sends it twice; the second one must not interrupt the clean-up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _TerminatedError

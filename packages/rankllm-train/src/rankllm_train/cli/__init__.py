"""The command line of rankllm-train. Subcommands are imported when they are called, so that `--help` is quick."""

from __future__ import annotations

import importlib
import io
import signal
import sys
from types import FrameType
from typing import NoReturn

import click

from rankllm_core.errors import RankLLMError, one_line
from rankllm_train import __version__

COMMANDS = {
    "listwise": "Train a listwise reranker: RankZephyr, FIRST.",
    "pointwise": "Train a pointwise reranker: RankLLaMA.",
    "recipes": "List the recipes, print one, show what options change.",
    "mine": "Make pointwise records: hard negatives from a first-stage run.",
    "label": "Make listwise records: from judgements, or from a reranker's results.",
    "split": "Split records into train and dev, without a leak.",
    "check-data": "Check a listwise training file record by record.",
    "merge": "Merge a LoRA adapter into its base model.",
}
DEFAULT_COMMAND = "listwise"
EXIT_USER_ERROR, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 130, 143
_OWN_OPTIONS = ("-h", "--help", "--version")

SETTINGS = {
    # Every option may be spelled with underscores, as in the commands of the original projects.
    "token_normalize_func": lambda token: token.replace("_", "-"),
    "help_option_names": ["-h", "--help"],
    "max_content_width": 120,
}


class TrainGroup(click.Group):
    """A group that imports a command's module only to run it, and takes options without a command for `listwise`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command before options that are not the group's own."""
        if args and args[0].startswith("--local_rank="):
            # From DeepSpeed's launcher, before all that the user wrote. The environment says the same.
            args = args[1:]
        if args and args[0].startswith("-") and args[0] not in _OWN_OPTIONS:
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order of a first use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import `rankllm_train.cli.NAME` and give its command."""
        name = cmd_name.replace("_", "-")
        if name not in COMMANDS:
            return None
        command = importlib.import_module(f"rankllm_train.cli.{name.replace('-', '_')}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"rankllm_train.cli.{name}.command is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=TrainGroup, context_settings=SETTINGS)
@click.version_option(__version__, prog_name="rankllm-train")
def cli() -> None:
    """Fine-tune large language models as rerankers.

    First steps: `train recipes`. `train OPTIONS` without a command is `train listwise OPTIONS`.
    """


def main() -> NoReturn:
    """Run the program. Errors of the user are one line; bugs keep their traceback."""
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that is not UTF-8 is printed with escapes, as on standard error, and does not end the program.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except RankLLMError as error:
        say(one_line(f"Error: {error}"))
        sys.exit(EXIT_USER_ERROR)
    except (KeyboardInterrupt, click.Abort) as error:
        if isinstance(error.__cause__, EOFError):
            raise error.__cause__ from None  # click takes it for Ctrl-D at a prompt; there are none
        say("Stopped.")
        sys.exit(EXIT_INTERRUPTED)
    except _TerminatedError:
        say("Stopped.")
        sys.exit(EXIT_TERMINATED)
    except BrokenPipeError:
        # The reader of our output has left (`| head`): nothing more to say, and nothing to flush.
        sys.stderr.close()
        sys.exit(EXIT_USER_ERROR)
    except OSError as error:
        if error.filename is None:
            raise
        # What a name, a disk or a permission forbids, wherever it shows first.
        say(one_line(f"Error: {error.filename!s}: {error.strerror}"))
        sys.exit(EXIT_USER_ERROR)
    sys.exit(code if isinstance(code, int) else 0)


def say(line: str) -> None:
    """A line for the person at the screen; standard output is for results."""
    click.echo(line, err=True)


class _TerminatedError(BaseException):
    """SIGTERM has come. Like KeyboardInterrupt, it passes whatever handles errors."""


def _terminate(number: int, frame: FrameType | None) -> None:
    # `timeout` sends it twice; the second must not break off the cleaning up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _TerminatedError

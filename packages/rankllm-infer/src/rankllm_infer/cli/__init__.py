"""The command line of rankllm-infer. Subcommands are imported when they are called, so that `--help` is quick."""

from __future__ import annotations

import importlib
import io
import signal
import sys
import warnings
from types import FrameType
from typing import NoReturn

import click

from rankllm_core.errors import RankLLMError, one_line
from rankllm_infer import __version__

COMMANDS = {
    "retrieve": "Find candidates: the first stage.",
    "prepare": "Join a first-stage run with queries and passages.",
    "rerank": "Rerank candidates with a language model.",
    "calibrate": "Measure what a FIRST model adds to each identifier, whatever passage it calls.",
    "convert": "Turn runs, results and request files into one another.",
    "evaluate": "Score runs against judgements, as trec_eval does.",
    "compare": "Set runs side by side: intervals, significance, queries won and lost.",
    "report": "Explain a ranking: one HTML page, query by query.",
    "prompts": "List prompt templates, or show what a model will see.",
    "doctor": "Say which engines and devices work here.",
    "demo": "Rerank an embedded collection with an embedded model.",
}
EXIT_USER_ERROR, EXIT_SOME_FAILED, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 3, 130, 143

SETTINGS = {
    # Every option may be spelled with underscores, as in the commands of the original projects.
    "token_normalize_func": lambda token: token.replace("_", "-"),
    "help_option_names": ["-h", "--help"],
    "max_content_width": 120,
    "show_default": True,
}


class LazyGroup(click.Group):
    """A group that imports a command's module only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands, in the order of a first use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import `rankllm_infer.cli.NAME` and give its command."""
        name = cmd_name.replace("_", "-")
        if name not in COMMANDS:
            return None
        command = importlib.import_module(f"rankllm_infer.cli.{name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"rankllm_infer.cli.{name}.command is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings=SETTINGS)
@click.version_option(__version__, prog_name="rankllm-infer")
def cli() -> None:
    """Rerank with large language models.

    First steps: `rankllm-infer demo`. Your own data: `retrieve`, `rerank`, `evaluate`.
    """


def main() -> NoReturn:
    """Run the program. Errors of the user are one line; bugs keep their traceback."""
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name that is not UTF-8 is printed with escapes, as on standard error, and does not end the program.
        sys.stdout.reconfigure(errors="backslashreplace")
    # What transformers will change one day is for programmers.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
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

"""Options and arguments that name a file, a folder or a model reject an empty name."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from rankllm_infer.cli import cli as infer
from rankllm_train.cli import cli as train

PLAIN_TEXTS = {
    *("--attn-implementation", "--base-url", "--checkpointing-steps", "--corpus-data-config", "--device"),
    *("--eval-steps", "--instruction", "--lora-target-modules", "--measure", "--qid", "--query", "--query-data-config"),
    *("--query-data-split", "--report-to", "--retrieval-method", "--set", "--system-message", "--tag", "--title"),
    *("--cors-origin", "--protect", "--root-path", "--vllm-arg"),
}
"""Options whose text names no file and nothing that may be one."""


def commands(group: click.Command, *words: str) -> dict[tuple[str, ...], click.Command]:
    """Map the words of each command to the command."""
    if not isinstance(group, click.Group):
        return {words: group}
    found = {}
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None, name
        found |= commands(command, *words, name)
    return found


def named_things():
    """Every parameter that names a file, a folder, a model or similar."""
    for program, group in (("rankllm-infer", infer), ("train", train)):
        for words, command in commands(group).items():
            for parameter in command.params:
                is_text = isinstance(parameter.type, click.Path | click.types.StringParamType)
                if is_text and PLAIN_TEXTS.isdisjoint(parameter.opts):
                    test_id = " ".join((program, *words, parameter.opts[0]))
                    yield pytest.param(group, words, command, parameter, id=test_id)


def arguments(command: click.Command, parameter: click.Parameter) -> list[str]:
    """A command line with an empty name for `parameter`, and `x` or a choice for other required parameters."""
    line = []
    for other in command.params:
        kind = other.type
        text = "" if other is parameter else kind.choices[0] if isinstance(kind, click.Choice) else "x"
        if other is parameter or other.required:
            line += [other.opts[0], text] if isinstance(other, click.Option) else [text]
    return line


@pytest.mark.parametrize(("group", "words", "command", "parameter"), list(named_things()))
def test_an_empty_name_is_wrong_usage(group, words, command, parameter, tmp_path, monkeypatch):
    """As with an unset shell variable: status 2, a line that names the option, nothing written."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(group, [*words, *arguments(command, parameter)])
    assert done.exit_code == 2, done.output
    shown = parameter.get_error_hint(click.Context(command))
    error = done.output.splitlines()[-1]
    assert error.startswith(f"Error: Invalid value for {shown}: expected a ")
    assert error.endswith(", found an empty one")
    assert list(tmp_path.iterdir()) == []

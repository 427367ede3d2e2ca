"""Options of other programs in our words: renamed, dropped, ignored with a warning, or answered with what to do."""

from __future__ import annotations

import pytest

from rankllm_core.errors import ConfigError
from rankllm_core.original_options import (
    OriginalOption,
    Originals,
    adapt_command,
    adapt_options,
    idle,
    renamed,
    replaced,
)

OWN = {"--model": "value", "--fast": "switch", "--no-fast": "switch", "--help": "switch"}
TABLE = {
    "--path": renamed("--model", "{}"),
    "--limit": renamed("--set", "limit={}", defaults=("-1",)),
    "--quick": renamed("--fast", takes="switch"),
    "--workers": idle(),
    "--pin": idle("switch"),
    "--names": idle("values"),
    "--azure": replaced("use --model", takes="switch"),
    "--width": replaced("use --model", defaults=("10",)),
    "--history": OriginalOption(takes="switch", instead="use --trace", covered_by=("--model",)),
    "--model": renamed("--model", "{}", defaults=("json",)),
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--path a --path=b", "--model a --model b"),
        ("--limit 3 --limit -1 --limit=-1", "--set limit=3"),
        ("--quick --quick True --quick=False --no-quick", "--fast --fast"),
        ("--fast true --fast=FALSE --fast --no-fast", "--fast --no-fast --fast --no-fast"),
        ("--model true --model=false", "--model true --model=false"),
        ("--model json --model=x", "--model=x"),
        ("--model --path --width 10", "--model --path"),
        ("--history --model m", "--model m"),
        ("word --unknown 3 -x", "word --unknown 3 -x"),
        ("-- --path a", "-- --path a"),
        ("--no-azure --azure false", ""),
    ],
)
def test_what_becomes_of_the_words(given, expected):
    """Ours stay, also where they are the value of another; a default is dropped; what nobody knows is left alone."""
    assert adapt_options(given.split(), OWN, TABLE) == (expected.split(), [])


def test_what_does_nothing_is_said_once_each():
    """With its value or values, which are no words of the command line any more."""
    given = "--workers 3 --pin --no_pin --names a b --model m --names"
    words, warnings = adapt_options(given.split(), OWN, TABLE)
    assert words == ["--model", "m"]
    assert [warning.split()[1] for warning in warnings] == ["--workers", "--pin", "--no-pin", "--names", "--names"]
    assert warnings[0] == "Warning: --workers has no effect in rankllm and is ignored"


@pytest.mark.parametrize("given", ["--azure", "--azure True", "--width 11", "--history"])
def test_what_we_do_otherwise_is_an_error_that_says_how(given):
    """It names the option that was given."""
    with pytest.raises(ConfigError, match=rf"^{given.split()[0]}: is an option of the original programs; use --"):
        adapt_options(given.split(), OWN, TABLE)


def test_commands_have_names_of_one_or_two_words():
    """The longer one counts; an option before the command is answered, too."""
    originals = Originals(
        options={"": {"--output": replaced("use --json")}},
        commands={"serve": ("x",), "serve mcp": ("mcp",)},
        replaced_commands={"view": "use report"},
    )
    assert adapt_command(["serve", "mcp", "--port", "1"], originals) == ["mcp", "--port", "1"]
    assert adapt_command(["serve", "--port"], originals) == ["x", "--port"]
    assert adapt_command(["rerank"], originals) == ["rerank"]
    with pytest.raises(ConfigError, match=r"^view: is a command of rank_llm; use report$"):
        adapt_command(["view", "f"], originals)
    with pytest.raises(ConfigError, match=r"^--output: use --json$"):
        adapt_command(["--output=json", "rerank"], originals)

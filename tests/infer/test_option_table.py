"""Each option of `rerank` is declared once: every row takes part in everything derived from the table."""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, fields

import click
import pytest
from click.testing import CliRunner
from option_values import ALIASES, FOR_PYTHON, OPTIONS, ROWS, SET, WORDS_BESIDE, options, write_files

from rankllm_core.errors import ConfigError
from rankllm_infer.cli.rerank.command import command, read_command
from rankllm_infer.cli.rerank.options import OWNERS, ModelArguments
from rankllm_infer.option_table import GROUPS, option, rows_of
from rankllm_infer.option_values import from_given
from rankllm_infer.options import RerankOptions


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Current folder, with the files that the options name."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    return tmp_path


def test_the_fields_written_down_here_are_all_there_are():
    """A new option must be added above to be tested; and every field of RerankOptions has a row."""
    assert set(SET) | {"api_key"} == set(ROWS)
    assert set(OPTIONS) == {field.name for field in fields(RerankOptions)}
    assert len(ROWS) == sum(len(rows_of(owner)) for owner in OWNERS)
    assert {name: list(row.option.flags[1:]) for name, row in ROWS.items() if row.option.flags[1:]} == ALIASES


# The command line.


def test_the_command_has_the_options_of_the_table_and_no_others():
    """Options that are accepted and ignored are hidden."""
    shown = {name for p in command.params if not getattr(p, "hidden", False) for name in p.opts}
    assert shown == {flag for name, row in ROWS.items() if name not in FOR_PYTHON for flag in row.option.flags}


def spelled(name):
    """The option's name and aliases, each also with underscores."""
    flag, *value = SET[name].words.split()
    flags = [flag, *ALIASES.get(name, [])]
    return [[spelling, *value] for f in flags for spelling in (f, "--" + f.removeprefix("--").replace("-", "_"))]


def parsed(*words):
    """Result of parsing a command line with click."""
    return command.make_context("rerank", list(words)).params


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.owner is RerankOptions and name in SET])
def test_each_flag_sets_its_field_of_the_options(folder, name):
    """Command-line options equal those of Python, with defaults in every other field."""
    given = SET[name]
    beside = [word for other in given.beside for word in WORDS_BESIDE.get(other, SET.get(other, given).words).split()]
    engine = [] if name == "engine" else ["--engine", given.engine]
    if given.engine == "openai" and name != "base_url":
        engine += ["--base-url", "http://h/v1"]
    for words in spelled(name):
        values = parsed("--model-path", "m", "--requests", "r", "--output", "o", *engine, *beside, *words)
        assert read_command(values).options == options(name)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.owner is not RerankOptions])
def test_each_flag_sets_its_field_of_the_command(name):
    """Inputs, outputs and the model: fields that are not given have the owner's default."""
    model = [] if name == "model_path" else ["--model-path", "m"]
    for words in spelled(name):
        made = from_given(ROWS[name].owner, parsed(*model, *words))
        assert getattr(made, name) == SET[name].value
        others = [row for row in rows_of(ROWS[name].owner).values() if row.name != name]
        assert all(getattr(made, row.name) == row.default for row in others if row.default is not MISSING)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.option.least is not None])
def test_a_number_below_the_least_is_refused(name):
    """On the command line and in Python."""
    row = ROWS[name]
    below = int(row.option.least) - 1
    with pytest.raises(click.BadParameter, match="is not in the range"):
        parsed("--model-path", "m", row.spelled, str(below))
    if row.owner is RerankOptions:
        with pytest.raises(ConfigError, match=rf"^({row.name}|{row.spelled}): expected "):
            RerankOptions(**{name: below})


def test_bounds_are_written_down():
    """By hand; a number without a bound may have any value."""
    by_bounds = {}
    for name, row in ROWS.items():
        if {int, float} & set(row.kinds):
            by_bounds.setdefault(row.bounds, set()).add(name)
    assert by_bounds == {
        "": {"seed"},
        "more than 0": {"timeout_s"},
        "from 0 to 1": {"fuse_weight"},
        "at least 0": {"batch_tokens", "num_few_shot_examples", "price_in", "price_out"},
        "at least 2": {"pass_depth"},
        "at least 1": {"batch_size", "concurrency", "context_size", "decode_top_k", "max_passage_words", "max_queries"}
        | {"num_gpus", "num_passes", "p_max_len", "permutations", "q_max_len", "rank_top_k", "stride"}
        | {"max_total_tokens", "top_k_candidates", "window_size"},
    }


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.option.choices])
def test_what_is_no_choice_is_refused(name):
    """On the command line and in Python."""
    row = ROWS[name]
    with pytest.raises(click.BadParameter, match="'nonsense' is not one of"):
        parsed("--model-path", "m", row.spelled, "nonsense")
    if row.owner is RerankOptions:
        with pytest.raises(ConfigError, match=rf"^{name}: expected one of "):
            RerankOptions(**{name: "nonsense"})


# Help.


def sections(text):
    """Heading -> its lines, from a help text."""
    found, lines = {}, []
    for line in text.splitlines():
        if re.fullmatch(r"[A-Z][^\n]*:", line):
            lines = found.setdefault(line.removesuffix(":"), [])
        lines.append(line)
    return {heading: "\n".join(below) for heading, below in found.items()}


@pytest.fixture(scope="module")
def shown():
    """Help text of `rerank`, by heading."""
    return sections(CliRunner().invoke(command, ["--help"], terminal_width=10_000).output)


def test_help_has_the_groups_in_their_order(shown):
    """With `--help` last."""
    assert list(shown) == [*(group for group in GROUPS if group != "Server"), "Other"]


@pytest.mark.parametrize("name", [name for name in SET if name != "with_trace"])
def test_help_shows_an_option_in_its_group(shown, name):
    """With its text, and nowhere else."""
    row, flag = ROWS[name], SET[name].words.split()[0].replace("--no-variable", "--variable")
    (line,) = [line for text in shown.values() for line in text.splitlines() if re.match(rf"  {flag}[ ,]", line)]
    section = shown[row.option.group]
    assert line in section.splitlines()
    assert row.help in " ".join(section.split())
    assert re.fullmatch(r"[A-Z].+\.", row.help, flags=re.DOTALL), row.help


def test_a_row_without_a_text_is_noticed():
    """The tests above rely on this: a new field must have a help text."""

    @dataclass(frozen=True, kw_only=True)
    class Plain:
        n: int = option(1, "--n", group="Input", least=1)

    with pytest.raises(KeyError):
        _ = rows_of(Plain)["n"].help


def test_a_model_is_required():
    """It is the only required option."""
    assert [name for name, row in ROWS.items() if row.default is MISSING] == ["model_path"]
    with pytest.raises(click.MissingParameter, match="model_path"):
        parsed("--requests", "r")
    assert rows_of(ModelArguments)["model_path"].spelled == "--model-path"


def test_secrets_are_not_shown():
    """A password in an address, and the key."""
    made = RerankOptions(engine="openai", base_url="http://me:secret@h/v1", api_key="sk-1")
    assert "secret" not in repr(made)
    assert "sk-1" not in repr(made)

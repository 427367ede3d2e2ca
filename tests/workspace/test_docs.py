"""The README and docs/ show only what works: commands parse, imported names exist, links resolve."""

from __future__ import annotations

import ast
import importlib
import inspect
import re

import click
import pytest
from page_blocks import FENCED, Block, blocks, shell_commands
from shared_files import REPOSITORY

from rankllm_infer.cli import cli as infer
from rankllm_train.cli import cli as train

OURS: dict[str, click.Group] = {"rankllm-infer": infer, "train": train, "rankllm-train": train}
"""Each program's name on the command line, and what parses its arguments."""
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "CHANGELOG.md",
    *sorted(REPOSITORY.glob("docs/**/*.md")),
    *sorted(REPOSITORY.glob("packages/*/README.md")),
    *sorted(REPOSITORY.glob("shared/*/README.md")),
]
_ASSIGNMENT = re.compile(r"\w+=")
_WITH_VALUE = ("--package", "--group", "--extra", "--with", "--python")
"""Options of `uv run` that take a value."""
_LAUNCHERS = ("torchrun", "accelerate", "deepspeed")
"""What starts `-m rankllm_train`."""


def own_program(words: list[str]) -> list[str]:
    """The name and arguments of one of our programs, plain or after `uv run ...`; empty for other programs."""
    while words and _ASSIGNMENT.match(words[0]):
        words = words[1:]
    if words[:2] == ["uv", "run"]:
        words = words[2:]
        while words and words[0].startswith("-"):
            words = words[2 if words[0] in _WITH_VALUE else 1 :]
    if words and words[0] in _LAUNCHERS and "rankllm_train" in words:
        words = ["rankllm-train", *words[words.index("rankllm_train") + 1 :]]
    return words if words and words[0] in OURS else []


def parse(command: click.Command, arguments: list[str], parent: click.Context | None = None) -> None:
    """Parse as click would, without running anything. Raises click.UsageError where click would."""
    if {"--help", "--version"} & set(arguments):
        return
    context = command.make_context(command.name, list(arguments), parent=parent)
    if isinstance(command, click.Group):
        _, below, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert below is not None
        parse(below, rest, context)


def told(language: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language == language]


COMMANDS = [
    pytest.param(command, id=f"{block.where} {' '.join(command)[:60]}")
    for block in told("bash")
    for words in shell_commands(block.body)
    if (command := own_program(words))
]
PROGRAMS = [pytest.param(block.body, id=block.where) for block in told("python")]


def test_a_script_is_split_into_its_commands():
    """Continued lines, comments, pipes, redirections, assignments and a leading `uv run`."""
    script = """
# a comment
printf 'a b\\n' | rankllm-infer rerank --query "what is | that" \\
  --passages - > out.txt  # more
KEY=x uv run --package rankllm-infer --group demo rankllm-infer demo
uv run --package rankllm-train --exact train listwise --recipe x && pip install rankllm-infer
uv run --extra deepspeed torchrun --nproc-per-node 8 -m rankllm_train pointwise --recipe y
"""
    assert [command for words in shell_commands(script) if (command := own_program(words))] == [
        ["rankllm-infer", "rerank", "--query", "what is | that", "--passages", "-"],
        ["rankllm-infer", "demo"],
        ["train", "listwise", "--recipe", "x"],
        ["rankllm-train", "pointwise", "--recipe", "y"],
    ]


@pytest.mark.parametrize(
    "command",
    [
        ["rankllm-infer", "rerank", "--model-path", "m", "--no-such-option"],
        ["rankllm-infer", "no-such-command"],
        ["rankllm-infer", "prompts", "no-such-command"],
        ["rankllm-infer", "demo", "--method", "no-such-method"],
        ["train", "listwise", "--no-such-option"],
    ],
)
def test_a_command_that_does_not_exist_is_noticed(command):
    """The next test relies on this."""
    with pytest.raises(click.UsageError):
        parse(OURS[command[0]], command[1:])


def test_the_readme_shows_commands_and_python():
    """A renamed fence would leave the tests below without input."""
    shown = [block.language for block in blocks(REPOSITORY / "README.md")]
    assert shown.count("bash") >= 3
    assert shown.count("python") >= 1
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses(command):
    """Every option exists and accepts its value."""
    parse(OURS[command[0]], command[1:])


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_python_example_uses_what_exists(program):
    """Imported names exist, and so do the keyword arguments in their calls."""
    tree = ast.parse(program)
    names: dict[str, object] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rankllm_"):
            module = importlib.import_module(node.module or "")
            names |= {alias.asname or alias.name: getattr(module, alias.name) for alias in node.names}
    assert names
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and callable(names.get(node.func.id)):
            accepted = inspect.signature(names[node.func.id]).parameters
            assert {keyword.arg for keyword in node.keywords} <= accepted.keys(), node.func.id


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_link_to_a_file_leads_somewhere(page):
    """Relative links only; nothing is downloaded."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    missing = [target for target in targets if target and not (page.parent / target).exists()]
    assert not missing

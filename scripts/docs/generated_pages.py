"""Pages that are made for the site: the Python interfaces, the commands' help, the examples."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click

PACKAGES = {
    "rankllm-infer": "packages/rankllm-infer/src/rankllm_infer",
    "rankllm-train": "packages/rankllm-train/src/rankllm_train",
}
CORE_MODULES = (
    "types",
    "errors",
    "card",
    "answers.reader",
    "data.records",
    "prompts.template",
    "trec.qrels",
    "trec.runs",
)
"""Modules of the core that user programs import; the core has no list of public names."""


def public_names(init: Path) -> list[str]:
    """The names in a module's `__all__`."""
    for node in ast.parse(init.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return list(ast.literal_eval(node.value))
    raise ValueError(f"{init}: no __all__")


def interface_page(root: Path, name: str) -> str:
    """Each public name of a package, from its docstring."""
    package = name.replace("-", "_")
    names = public_names(root / PACKAGES[name] / "__init__.py")
    entries = "\n".join(f"::: {package}.{public}\n" for public in names)
    return f"# Python interface of {name}\n\nWhat `from {package} import ...` offers.\n\n{entries}"


def core_page() -> str:
    """The modules of the core that a user's program may import."""
    entries = "\n".join(
        f"::: rankllm_core.{module}\n    options:\n      show_root_full_path: true\n" for module in CORE_MODULES
    )
    return (
        "# Python interface of rankllm-core\n\nWhat both programs share. It may change between minor versions while "
        f"the version begins with 0.\n\n{entries}"
    )


def help_of(command: click.Command, path: list[str], parent: click.Context | None = None) -> list[str]:
    """The help of a command and of those below it, as Markdown."""
    context = click.Context(command, info_name=path[-1], parent=parent, max_content_width=100, terminal_width=100)
    text = click.unstyle(command.get_help(context))
    parts = [f"{'#' * min(len(path) + 1, 4)} {' '.join(path)}\n\n```text\n{text}\n```\n"]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                parts += help_of(below, [*path, name], context)
    return parts


def commands_page() -> str:
    """`--help` of every command of both programs."""
    from rankllm_infer.cli import cli as infer
    from rankllm_train.cli import cli as train

    parts = [*help_of(infer, ["rankllm-infer"]), *help_of(train, ["train"])]
    return "# Commands\n\nWhat `--help` prints. `train` and `rankllm-train` are the same program.\n\n" + "\n".join(
        parts
    )


def examples_page(root: Path) -> str:
    """The scripts of examples/, each with its docstring as the text before it."""
    parts = ["# Examples\n\nFour short scripts; CI runs them. They need no GPU and no model hub.\n"]
    for file in sorted((root / "examples").glob("*.py")):
        source = file.read_text(encoding="utf-8")
        described = (ast.get_docstring(ast.parse(source)) or "").strip()
        code = re.sub(r'\A""".*?"""\n*', "", source, flags=re.DOTALL)
        parts.append(f"## {file.name}\n\n{described}\n\n```python\n{code}```\n")
    return "\n".join(parts)


def write_generated_pages(root: Path, pages: Path) -> None:
    """All of them, into site/."""
    written = {name: interface_page(root, name) for name in PACKAGES}
    written |= {"rankllm-core": core_page(), "commands": commands_page(), "examples": examples_page(root)}
    (pages / "site").mkdir(parents=True)
    for name, text in written.items():
        (pages / "site" / f"{name}.md").write_text(text, encoding="utf-8")

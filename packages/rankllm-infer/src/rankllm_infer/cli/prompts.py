"""`rankllm-infer prompts`: list and show prompt templates, and render the prompts that a model sees."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankllm_core.command_line import NAME
from rankllm_core.errors import for_terminal
from rankllm_infer.cli import say
from rankllm_infer.cli.options import row_options
from rankllm_infer.cli.rerank.options import ModelArguments, RerankInput
from rankllm_infer.option_table import ENGINES, changed, rows_of
from rankllm_infer.option_values import from_given
from rankllm_infer.options import RerankOptions

if TYPE_CHECKING:
    from rankllm_core.types import Request
    from rankllm_infer.engines.base import Prompt
    from rankllm_infer.preview import RenderedPrompt

_DEFAULT_STRIDE = 10
_ROWS, _INPUT = rows_of(RerankOptions), rows_of(RerankInput)
_WITHOUT_CARD = {
    "template": "rank_zephyr (rank_zephyr_alpha with --use-alpha; rankllama for a score head)",
    "window_size": "20",
    "use_alpha": "no-use-alpha",
    "use_logits": "no-use-logits",
    "max_passage_words": "300",
    "context_size": "4096",
}
"""Defaults without a model, or for a model without a card."""


@click.group("prompts")
def command() -> None:
    """List prompt templates, or show the prompts that a model sees."""


@command.command("list")
@click.option("--json/--no-json", "as_json", default=False, help="Print one JSON object per template.")
def list_templates(*, as_json: bool) -> None:
    """List the bundled templates with name, method and purpose."""
    from rankllm_core.files import dumps
    from rankllm_core.prompts.template import load_template, template_names

    names = template_names()
    rows = [(name, load_template(name).method, _first_sentence(_shipped_text(name))) for name in names]
    if as_json:
        for name, method, about in rows:
            click.echo(dumps({"name": name, "method": method, "description": about}))
        return
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, method, about in rows:
        click.echo(f"{name:<{widths[0]}}  {method:<{widths[1]}}  {about}")


@command.command("show")
@click.argument("template", type=NAME, metavar="NAME|FILE")
def show_template(*, template: str) -> None:
    """Print a template's YAML.

    NAME is a bundled template; a FILE is also validated.
    """
    from rankllm_core.prompts.template import load_template

    name = load_template(template).name
    click.echo(for_terminal(_file_text(template)) if Path(template).exists() else _shipped_text(name), nl=False)


@command.command("render")
@row_options(
    changed(
        _INPUT["requests"],
        flags=(*_INPUT["requests"].option.flags, *_INPUT["rerank_input"].option.flags),
        text="Requests, results or query-passage pairs (JSONL); detected from the first line.",
    ),
    changed(_INPUT["query"], text="Single query to render with --passages, instead of --requests."),
    _INPUT["passages"],
)
@click.option("--qid", help="Query to show.  [default: the first]")
@row_options(
    *(changed(_ROWS[name], default_text=f"from the card, else {value}") for name, value in _WITHOUT_CARD.items()),
    changed(_ROWS["top_k_candidates"], default_text="all", text="Number of candidates to assume per query."),
    _ROWS["system_message"],
    _ROWS["instruction"],
    changed(
        rows_of(ModelArguments)["model_path"],
        default=None,
        text="Model whose card and tokenizer are used to print the exact text. Its weights are not loaded.",
    ),
    changed(_ROWS["revision"], engines=ENGINES),
    changed(
        _ROWS["trust_remote_code"],
        engines=ENGINES,
        text="Run remote code: custom Python code that comes with the tokenizer. Only allowed for a local folder or a "
        "model pinned to a full 40-digit commit hash: --revision COMMIT or OWNER/MODEL@COMMIT.",
    ),
)
@click.option("--json/--no-json", "as_json", default=False, help="Print one JSON object.")
def render(**given: Any) -> None:
    """Print the first prompt that a model sees for a query.

    This is the first prompt that `rerank` sends: the lowest window, or the first query-passage pair. No model is
    loaded. Without --model-path, prints the chat messages and an estimated token count.
    """
    from rankllm_core.files import dumps
    from rankllm_infer.preview import find_request, render_prompt, rendered_to_dict

    asked = RenderCommand(**{name: given.pop(name) for name in RenderCommand.__dataclass_fields__})
    request = find_request(asked.requests, asked.qid) if asked.requests else _typed_request(asked)
    for name in ("trust_remote_code", "revision"):
        if given[name] and asked.model_path is None:
            raise click.UsageError(f"{_ROWS[name].spelled} has no effect without --model-path")
    rendered = render_prompt(request, _options(given), asked.model_path)
    for warning in rendered.resolved.warnings:
        if not warning.startswith("--stride:"):
            say(f"Warning: {warning}")
    if asked.as_json:
        click.echo(dumps(rendered_to_dict(rendered)))
        return
    say(_about(rendered))
    click.echo(_shown(rendered.prompt))


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderCommand:
    """Parsed options of `prompts render`, except those shared with `rerank`."""

    requests: Path | None
    query: str | None
    passages: str | None
    qid: str | None
    model_path: str | None
    as_json: bool

    def __post_init__(self) -> None:
        given = {
            "--requests": self.requests,
            "--query": self.query,
            "--passages": self.passages,
            "--qid": self.qid,
        }
        names = {name for name, value in given.items() if value is not None}
        if names not in ({"--requests"}, {"--requests", "--qid"}, {"--query", "--passages"}):
            found = f", not {' with '.join(name for name in given if name in names)}" if names else ""
            raise click.UsageError(f"give --requests (and perhaps --qid), or --query with --passages{found}")


def _typed_request(asked: RenderCommand) -> Request:
    """Make a request of the query and the passages on the command line."""
    from rankllm_infer.formats.text_sources import read_passages
    from rankllm_infer.ranking.flow import make_request

    source = sys.stdin.buffer if asked.passages == "-" else None
    return make_request(asked.query or "", read_passages(asked.passages or "", source=source))


def _options(given: Mapping[str, Any]) -> RerankOptions:
    """Build the options that determine a prompt. given: command-line values, None if not given."""
    window_size = given["window_size"]
    # The first window does not depend on the stride, which only must not exceed the window size.
    stride = None if window_size is None else min(window_size, _DEFAULT_STRIDE)
    return from_given(RerankOptions, given, stride=stride)


def _about(rendered: RenderedPrompt) -> str:
    """Describe the rendered prompt and the settings behind it in one line."""
    card = rendered.resolved.card
    qid = for_terminal(rendered.request.query.qid, one_line=True)
    n = len(rendered.request.candidates)
    shown = f"rank 1 of {n}" if card.kind == "pointwise" else f"ranks {rendered.start + 1}-{rendered.end} of {n}"
    tokens = f"{rendered.n_tokens} tokens" if rendered.is_exact else f"about {rendered.n_tokens} tokens (estimated)"
    return (
        f"Query {qid}, {shown}, {tokens}; {card.kind}, template {card.template.name}, "
        f"output: {_READS[rendered.prompt.read]} ({rendered.resolved.origin})"
    )


_READS = {
    "text": "a generated ranking",
    "permutation": "a generated ranking, constrained to its identifiers",
    "first-token": "the logits of the next token",
    "head": "the score head",
}


def _shown(prompt: Prompt) -> str:
    """Return the exact text, or each message under its role. Control characters are escaped."""
    if not prompt.messages:
        return for_terminal(prompt.text)
    return for_terminal("\n\n".join(f"=== {message.role} ===\n{message.content}" for message in prompt.messages))


def _shipped_text(name: str) -> str:
    return (resources.files("rankllm_core") / "templates" / f"{name}.yaml").read_text(encoding="utf-8")


def _file_text(path: str) -> str:
    from rankllm_core.files import read_text

    return read_text(path)


def _first_sentence(text: str) -> str:
    """Return the first sentence of the comment at the top of a template."""
    comment = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ") for line in comment).split(". ")[0].rstrip(".")

"""`rankllm-infer prompts`: the templates there are, and what a model will see."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankllm_core.command_line import NAME, PATH
from rankllm_core.errors import RankLLMError
from rankllm_core.terminal import for_terminal
from rankllm_infer.cli import say
from rankllm_infer.wording import examples

if TYPE_CHECKING:
    from rankllm_core.prompts.template import PointwiseTemplate
    from rankllm_core.types import Request
    from rankllm_infer.effective_card import ResolvedCard
    from rankllm_infer.engines.base import Prompt
    from rankllm_infer.options import RerankOptions
    from rankllm_infer.ranking.pointwise import PairWriter

_DEFAULT_STRIDE = 10


@click.group("prompts")
def command() -> None:
    """List prompt templates, or show what a model will see."""


@command.command("list")
@click.option("--json/--no-json", "as_json", default=False, help="Print one JSON object a template.")
def list_templates(*, as_json: bool) -> None:
    """Name, method and purpose of each shipped template."""
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

    NAME is a shipped one; a FILE is checked as well.
    """
    from rankllm_core.prompts.template import load_template

    name = load_template(template).name
    click.echo(for_terminal(_file_text(template)) if Path(template).exists() else _shipped_text(name), nl=False)


@command.command("render")
@click.option(
    "--requests",
    "--requests-file",
    "--rerank-input",
    "--encode-in-path",
    "requests",
    type=PATH,
    required=True,
    help="Requests, results or rerank-input; told apart by their first line.",
)
@click.option("--qid", help="The query to show; by default the first one.")
@click.option(
    "--prompt-template-path", "template", type=NAME, help="A template's name or YAML file.  [default: rank_zephyr]"
)
@click.option("--window-size", type=click.IntRange(1), help="Passages in a prompt.  [default: 20]")
@click.option("--use-alpha/--no-use-alpha", default=None, help="Call the passages A, B, C.")
@click.option("--use-logits/--no-use-logits", default=None, help="FIRST: the answer is opened with `[`.")
@click.option("--max-passage-words", type=click.IntRange(1), help="Words of a passage shown.  [default: 300]")
@click.option("--context-size", type=click.IntRange(1), help="Tokens of prompt and answer.  [default: 4096]")
@click.option("--top-k-candidates", type=click.IntRange(1), help="As if so many were to be reranked.")
@click.option("--system-message", help="In place of the template's own.")
@click.option(
    "--model-path",
    "--model-name-or-path",
    "model",
    type=NAME,
    help="Read this model's card and tokenizer, not its weights, and print the exact text.",
)
@click.option(
    "--trust-remote-code/--no-trust-remote-code",
    "trust_remote_code",
    default=False,
    help="Run Python code that comes with the tokenizer: a local folder, or a revision pinned as OWNER/MODEL@COMMIT.",
)
@click.option("--json/--no-json", "as_json", default=False, help="Print one JSON object.")
def render(
    *,
    requests: Path,
    qid: str | None,
    template: str | None,
    window_size: int | None,
    use_alpha: bool | None,
    use_logits: bool | None,
    max_passage_words: int | None,
    context_size: int | None,
    top_k_candidates: int | None,
    system_message: str | None,
    model: str | None,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Print what the model will see for a query.

    It is the first prompt that `rerank` sends: the lowest window, or the first pair. No model is loaded. Without
    --model-path the chat messages are printed, and their tokens estimated.
    """
    from rankllm_core.files import dumps
    from rankllm_infer.options import RerankOptions

    request = _find_request(requests, qid)
    options = RerankOptions(
        template=template,
        window_size=window_size,
        # The first window does not depend on the stride; it must only not be larger than the window.
        stride=None if window_size is None else min(window_size, _DEFAULT_STRIDE),
        use_alpha=use_alpha,
        use_logits=use_logits,
        max_passage_words=max_passage_words,
        context_size=context_size,
        top_k_candidates=top_k_candidates,
        system_message=system_message,
        trust_remote_code=trust_remote_code,
    )
    if trust_remote_code and model is None:
        raise click.UsageError("--trust-remote-code has no effect without --model-path")
    rendered = _render(request, options, model)
    for warning in rendered.resolved.warnings:
        if not warning.startswith("--stride:"):
            say(f"Warning: {warning}")
    if as_json:
        click.echo(dumps(_as_dict(rendered)))
        return
    say(_about(rendered))
    click.echo(_shown(rendered.prompt))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rendered:
    """The first prompt of a query."""

    request: Request
    resolved: ResolvedCard
    prompt: Prompt
    start: int
    """0-based rank of the first passage shown."""
    end: int
    n_tokens: int
    is_exact: bool
    """Whether the model's own tokenizer wrote it; else the tokens are estimated."""


def _find_request(path: Path, qid: str | None) -> Request:
    from rankllm_core.data.records import read_requests, read_rerank_input
    from rankllm_infer.formats.convert import detect_format

    kind = detect_format(path)
    if kind == "run":
        raise RankLLMError(f"{path}: expected requests or rerank-input, found no JSON; join a run with `prepare` first")
    qids = []
    for request in read_requests(path) if kind == "requests" else read_rerank_input(path):
        if qid is None or request.query.qid == qid:
            return request
        qids.append(request.query.qid)
    asked = "no queries" if qid is None else f"no query {qid!r}"
    raise RankLLMError(f"{path}: holds {asked}; its queries are {examples(qids) or 'none'}")


def _render(request: Request, options: RerankOptions, model: str | None) -> _Rendered:
    """The first prompt of the flow that `rerank` runs, and what it shows."""
    from rankllm_core.card import PointwiseCard
    from rankllm_infer.ranking.decoding import check_decoding, decodes_freely
    from rankllm_infer.ranking.listwise import ListwisePlan, rerank_listwise
    from rankllm_infer.ranking.pointwise import PointwisePlan, rerank_pointwise
    from rankllm_infer.ranking.windows import WindowSchedule

    resolved, writer = _without_model(options) if model is None else _with_model(model, options)
    card = resolved.card
    if isinstance(card, PointwiseCard):
        flow = rerank_pointwise(request, PointwisePlan(card=card, top_k_candidates=1), writer)
        start, end = 0, 1
    else:
        plan = ListwisePlan(
            card=card,
            top_k_candidates=options.top_k_candidates,
            system_message=options.system_message,
            free_decoding=model is None or decodes_freely(card, options),
        )
        if model is not None:
            plan, _ = check_decoding(plan, writer)
        flow = rerank_listwise(request, plan, writer)
        n = len(request.candidates[: options.top_k_candidates])
        schedule = WindowSchedule(size=card.window_size, stride=card.stride)
        start, end = next(schedule.windows(n), (0, 0))
    try:
        prompt = next(flow)[0]
    except StopIteration:
        found = f"{len(request.candidates)} candidates" if end != 1 else "one candidate to rerank"
        raise RankLLMError(f"query {request.query.qid!r}: has {found}, so no model is asked") from None
    return _Rendered(
        request=request,
        resolved=resolved,
        prompt=prompt,
        start=start,
        end=end,
        n_tokens=len(prompt.token_ids) or _estimated_tokens(prompt),
        is_exact=model is not None,
    )


def _without_model(options: RerankOptions) -> tuple[ResolvedCard, Any]:
    from rankllm_core.card import PointwiseCard
    from rankllm_infer.api import message_writer
    from rankllm_infer.effective_card import resolve_card

    resolved = resolve_card("", options, folder=None, score_head=False)
    card = resolved.card
    if isinstance(card, PointwiseCard) and card.head != "yes-no":
        return resolved, _PairTextWriter(card.template)
    return resolved, message_writer(card)


def _with_model(model: str, options: RerankOptions) -> tuple[ResolvedCard, Any]:
    """What `rerank` makes of a checkpoint, read from its card, configuration and tokenizer alone."""
    from rankllm_core.card import PointwiseCard
    from rankllm_infer.api import token_writer
    from rankllm_infer.checkpoints.hub import has_score_head, load_tokenizer, locate_model
    from rankllm_infer.checkpoints.remote_code import check_remote_code
    from rankllm_infer.effective_card import resolve_card
    from rankllm_infer.local_models import fit_card

    resolved = resolve_card(model, options, folder=locate_model(model, weights=False), score_head=has_score_head(model))
    trusted = options.trust_remote_code
    warnings = check_remote_code(model, allowed=True) if trusted else ()
    tokenizer = load_tokenizer(model, trust_remote_code=trusted)
    resolved = replace(resolved, warnings=(*resolved.warnings, *warnings))
    writer: Any = token_writer(resolved.card, tokenizer)
    if isinstance(resolved.card, PointwiseCard):
        return resolved, _ExactPairWriter(writer, tokenizer)
    card, _ = fit_card(resolved.card, _positions(model), asked=options.context_size)
    return replace(resolved, card=card), writer


def _positions(model: str) -> int | None:
    """How many tokens the model has positions for, where that can be told without fetching an adapter's base."""
    from rankllm_infer.checkpoints.hub import adapter_config, model_config

    adapter = adapter_config(model)
    base = model if adapter is None else str(adapter.get("base_model_name_or_path", ""))
    if adapter is not None and not Path(base).is_dir():
        return None
    positions = model_config(base).get("max_position_embeddings")
    return positions if isinstance(positions, int) else None


class _PairTextWriter:
    """Writes a pair for a score head without its tokenizer: nothing is cut, and no BOS is shown."""

    def __init__(self, template: PointwiseTemplate) -> None:
        self._template = template

    def write(self, query: str, *, title: str, text: str) -> Prompt:
        from rankllm_infer.engines.base import Prompt

        passage = self._template.passage.format(title=title, text=text)
        return Prompt(text=self._template.query.format(query=query) + "\n" + passage, read="head")


class _ExactPairWriter:
    """Writes a pair and shows the text that its ids stand for, which is cut and holds the BOS."""

    def __init__(self, writer: PairWriter, tokenizer: Any) -> None:
        self._writer = writer
        self._tokenizer = tokenizer

    def write(self, query: str, *, title: str, text: str) -> Prompt:
        prompt = self._writer.write(query, title=title, text=text)
        if prompt.read != "head":
            return prompt
        return replace(prompt, text=self._tokenizer.decode(list(prompt.token_ids)))


def _estimated_tokens(prompt: Prompt) -> int:
    from rankllm_infer.engines.openai.budget import estimate_text_tokens, estimate_tokens

    return estimate_tokens(prompt.messages) if prompt.messages else estimate_text_tokens(prompt.text)


def _about(rendered: _Rendered) -> str:
    """One line on what is shown and by which rules."""
    card = rendered.resolved.card
    qid = for_terminal(rendered.request.query.qid, one_line=True)
    n = len(rendered.request.candidates)
    shown = f"ranks {rendered.start + 1}-{rendered.end} of {n}" if card.kind == "listwise" else f"rank 1 of {n}"
    tokens = f"{rendered.n_tokens} tokens" if rendered.is_exact else f"about {rendered.n_tokens} tokens (estimated)"
    return (
        f"Query {qid}, {shown}, {tokens}; {card.kind}, template {card.template.name}, "
        f"read: {_READS[rendered.prompt.read]} ({rendered.resolved.origin})"
    )


_READS = {
    "text": "the generated ranking",
    "permutation": "the ranking that is generated of its identifiers alone",
    "first-token": "the logits of the next token",
    "head": "the score head",
}


def _shown(prompt: Prompt) -> str:
    """The prompt for the screen: the exact text, or each message under its role. Control characters are escaped."""
    if not prompt.messages:
        return for_terminal(prompt.text)
    return for_terminal("\n\n".join(f"=== {message.role} ===\n{message.content}" for message in prompt.messages))


def _as_dict(rendered: _Rendered) -> dict[str, object]:
    prompt, card = rendered.prompt, rendered.resolved.card
    record: dict[str, object] = {
        "qid": rendered.request.query.qid,
        "docids": [c.docid for c in rendered.request.candidates[rendered.start : rendered.end]],
        "first_rank": rendered.start + 1,
        "kind": card.kind,
        "template": card.template.name,
        "card": rendered.resolved.origin,
        "read": prompt.read,
        "identifiers": list(prompt.identifiers),
        "n_tokens": rendered.n_tokens,
        "is_exact": rendered.is_exact,
    }
    if prompt.messages:
        record["messages"] = [{"role": message.role, "content": message.content} for message in prompt.messages]
    else:
        record["text"] = prompt.text
    if prompt.token_ids:
        record["token_ids"] = list(prompt.token_ids)
    return record


def _shipped_text(name: str) -> str:
    return (resources.files("rankllm_core") / "templates" / f"{name}.yaml").read_text(encoding="utf-8")


def _file_text(path: str) -> str:
    from rankllm_core.files import read_text

    return read_text(path)


def _first_sentence(text: str) -> str:
    """Of the comment that opens a template."""
    comment = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ") for line in comment).split(". ")[0].rstrip(".")

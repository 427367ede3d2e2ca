"""`rankllm-infer prompts`: the templates there are, and what a model will see."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, replace
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rankllm_core.command_line import NAME
from rankllm_core.errors import RankLLMError
from rankllm_core.terminal import for_terminal
from rankllm_infer.cli import say
from rankllm_infer.cli.options import row_options, select
from rankllm_infer.cli.rerank_options import ModelArguments, RerankInput
from rankllm_infer.option_table import ENGINES, changed, rows_of
from rankllm_infer.options import RerankOptions
from rankllm_infer.wording import examples

if TYPE_CHECKING:
    from rankllm_core.card import Card
    from rankllm_core.prompts.template import PointwiseTemplate
    from rankllm_core.types import Request
    from rankllm_infer.checkpoints.model_files import ModelFolder
    from rankllm_infer.effective_card import EffectiveCard
    from rankllm_infer.engines.base import Prompt
    from rankllm_infer.ranking.flow import RankingMethod, RankingSettings
    from rankllm_infer.ranking.pointwise import PairWriter

_DEFAULT_STRIDE = 10
_ROWS, _INPUT = rows_of(RerankOptions), rows_of(RerankInput)


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
@row_options(
    changed(
        _INPUT["requests"],
        flags=(*_INPUT["requests"].option.flags, *_INPUT["rerank_input"].option.flags),
        default=MISSING,
        text="Requests, results or query-passage pairs, JSONL; the first line tells which.",
    )
)
@click.option("--qid", help="The query to show; by default the first one.")
@row_options(
    *select(RerankOptions, "template", "window_size", "use_alpha", "use_logits", "max_passage_words", "context_size"),
    changed(_ROWS["top_k_candidates"], default_text="all", text="Render as if this many candidates were reranked."),
    _ROWS["system_message"],
    changed(
        rows_of(ModelArguments)["model_path"],
        default=None,
        text="Use this model's card and tokenizer to print the exact text. Its weights are not read.",
    ),
    changed(
        _ROWS["trust_remote_code"],
        engines=ENGINES,
        text="Run Python code that comes with the tokenizer. Allowed for a local folder or a revision pinned as "
        "OWNER/MODEL@COMMIT.",
    ),
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
    model_path: str | None,
    trust_remote_code: bool | None,
    as_json: bool,
) -> None:
    """Print what the model will see for a query.

    It is the first prompt that `rerank` sends: the lowest window, or the first pair. No model is loaded. Without
    --model-path the chat messages are printed, and their tokens estimated.
    """
    from rankllm_core.files import dumps

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
        trust_remote_code=bool(trust_remote_code),
    )
    if trust_remote_code and model_path is None:
        raise click.UsageError("--trust-remote-code has no effect without --model-path")
    rendered = _render(request, options, model_path)
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
    resolved: EffectiveCard
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
    from rankllm_core.card import ListwiseCard
    from rankllm_infer.ranking.strategies import WindowSchedule

    resolved, method = _without_model(options) if model is None else _with_model(model, options)
    card = resolved.card
    start, end = 0, 1
    if isinstance(card, ListwiseCard):
        n = len(request.candidates[: options.top_k_candidates])
        schedule = WindowSchedule(size=card.window_size, stride=card.stride)
        start, end = next(schedule.windows(n), (0, 0))
    try:
        prompt = next(method.flow(request))[0]
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


def _without_model(options: RerankOptions) -> tuple[EffectiveCard, RankingMethod]:
    """The default card with the options over it, prompted as for a server whose tokenizer is not known."""
    from rankllm_core.card import PointwiseCard
    from rankllm_infer.effective_card import resolve_card
    from rankllm_infer.ranking.method import make_method
    from rankllm_infer.ranking.pointwise import PointwiseMethod

    resolved = resolve_card("", options, folder=None, score_head=False)
    card = resolved.card
    if isinstance(card, PointwiseCard) and card.head != "yes-no":
        return resolved, PointwiseMethod(card, _settings(card, options), _PairTextWriter(card.template))
    return resolved, make_method(card, _settings(card, options), None)


def _with_model(model: str, options: RerankOptions) -> tuple[EffectiveCard, RankingMethod]:
    """What `rerank` makes of a checkpoint, read from its card, configuration and tokenizer alone."""
    from rankllm_infer.checkpoints.loading import load_tokenizer
    from rankllm_infer.checkpoints.model_files import check_remote_code, find_base, find_folder
    from rankllm_infer.effective_card import fit_card, resolve_card
    from rankllm_infer.engines.transformers.permutation_ids import check_permutations
    from rankllm_infer.ranking.method import make_method
    from rankllm_infer.ranking.pointwise import PointwiseMethod

    own = find_folder(model)
    resolved = resolve_card(model, options, folder=own.path, score_head=own.has_score_head)
    trusted = options.trust_remote_code
    warnings = check_remote_code(own) if trusted else ()
    folder = own.path if own.has_tokenizer else find_base(own).path
    tokenizer = load_tokenizer(folder, trust_remote_code=trusted)
    card, _ = fit_card(resolved, _positions(own))
    resolved = replace(resolved, card=card, warnings=(*resolved.warnings, *warnings))
    method = make_method(card, _settings(card, options, free_decoding=False), tokenizer)
    if isinstance(method, PointwiseMethod):
        return resolved, PointwiseMethod(method.card, method.settings, _ExactPairWriter(method.writer, tokenizer))
    if method.sample is not None:
        check_permutations(tokenizer, method.sample)
    return resolved, method


def _settings(card: Card, options: RerankOptions, *, free_decoding: bool = True) -> RankingSettings:
    """What of the options decides the first prompt."""
    from rankllm_infer.ranking.flow import RankingSettings

    n_shown = 1 if card.kind == "pointwise" else options.top_k_candidates
    return RankingSettings(top_k_candidates=n_shown, system_message=options.system_message, free_decoding=free_decoding)


def _positions(own: ModelFolder) -> int | None:
    """How many tokens the model has positions for, where that can be told without fetching an adapter's base."""
    from rankllm_infer.checkpoints.model_files import find_folder

    if own.adapter is None:
        return own.positions
    base = str(own.adapter.get("base_model_name_or_path", ""))
    return find_folder(base).positions if Path(base).is_dir() else None


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
    from rankllm_infer.ranking.prompts import estimate_text_tokens, estimate_tokens

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

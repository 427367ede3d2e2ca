"""Preview of prompts: render the first prompt of a query without loading the model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankllm_core.errors import RankLLMError
from rankllm_infer.options import RerankOptions
from rankllm_infer.watching import examples

if TYPE_CHECKING:
    from rankllm_core.card import Card, PairwiseCard, PointwiseCard
    from rankllm_core.types import Request
    from rankllm_infer.checkpoints.model_files import ModelFolder
    from rankllm_infer.effective_card import EffectiveCard
    from rankllm_infer.engines.base import Prompt
    from rankllm_infer.ranking.flow import RankingMethod
    from rankllm_infer.ranking.pointwise import PairWriter
    from rankllm_infer.ranking.settings import RankingSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedPrompt:
    """First prompt of a query, with the ranks it shows."""

    request: Request
    resolved: EffectiveCard
    prompt: Prompt
    start: int
    """0-based rank of the first passage shown."""
    end: int
    n_tokens: int
    is_exact: bool
    """True if rendered with the model's own tokenizer; otherwise token counts are estimates."""


def find_request(path: Path, qid: str | None) -> Request:
    """Read a query's request, by default the first, from requests, results or rerank-input. Raises RankLLMError."""
    from rankllm_core.data.records import read_requests, read_rerank_input
    from rankllm_infer.formats.convert import detect_format

    kind = detect_format(path)
    if kind == "run":
        raise RankLLMError(
            f"{path}: expected requests or rerank-input, found no JSON; join a run with its texts first (`prepare`)"
        )
    qids = []
    for request in read_requests(path) if kind == "requests" else read_rerank_input(path):
        if qid is None or request.query.qid == qid:
            return request
        qids.append(request.query.qid)
    asked = "no queries" if qid is None else f"no query {qid!r}"
    raise RankLLMError(f"{path}: contains {asked}; its queries: {examples(qids) or 'none'}")


def render_prompt(request: Request, options: RerankOptions, model: str | None) -> RenderedPrompt:
    """Render the first prompt that `rerank` would send for a request, without reading weights.

    model: a folder or hub name, for its card and tokenizer; None for the default card and estimated token counts.
    Raises RankLLMError, also if the query needs no prompt.
    """
    from rankllm_core.card import ListwiseCard, PairwiseCard
    from rankllm_infer.ranking.strategies import WindowSchedule

    resolved, method = _without_model(options) if model is None else _with_model(model, options)
    card = resolved.card
    start, end = 0, 1
    if isinstance(card, PairwiseCard):
        end = min(2, len(request.candidates))
    elif isinstance(card, ListwiseCard):
        n = len(request.candidates[: options.top_k_candidates])
        schedule = WindowSchedule(size=card.window_size, stride=card.stride)
        start, end = next(schedule.windows(n), (0, 0))
    try:
        prompt = next(method.flow(request))[0]
    except StopIteration:
        found = f"{len(request.candidates)} candidates" if end != 1 else "one candidate to rerank"
        raise RankLLMError(f"query {request.query.qid!r}: has {found}, so the model is not called") from None
    return RenderedPrompt(
        request=request,
        resolved=resolved,
        prompt=prompt,
        start=start,
        end=end,
        n_tokens=len(prompt.token_ids) or _estimated_tokens(prompt),
        is_exact=model is not None,
    )


def _without_model(options: RerankOptions) -> tuple[EffectiveCard, RankingMethod]:
    """Return the default card with the options applied, prompted as for a server with an unknown tokenizer."""
    from rankllm_core.card import PairwiseCard, PointwiseCard
    from rankllm_infer.effective_card import resolve_card
    from rankllm_infer.plan import make_method
    from rankllm_infer.ranking.pairwise import PairwiseMethod
    from rankllm_infer.ranking.pointwise import MessagePairWriter, PointwiseMethod

    resolved = resolve_card("", options, folder=None, score_head=False)
    card = resolved.card
    if isinstance(card, PointwiseCard):
        writer = MessagePairWriter(card) if card.template.is_chat else _PairTextWriter(card)
        return resolved, PointwiseMethod(card, _settings(card, options), writer)
    if isinstance(card, PairwiseCard) and not card.template.is_chat:
        return resolved, PairwiseMethod(card, _settings(card, options), _ComparisonTextWriter(card))
    return resolved, make_method(card, _settings(card, options), None)


def _with_model(model: str, options: RerankOptions) -> tuple[EffectiveCard, RankingMethod]:
    """Return a checkpoint's card and method as `rerank` uses them, from its card, configuration and tokenizer only."""
    from rankllm_infer.checkpoints.model_files import check_remote_code, find_base, find_folder, load_tokenizer
    from rankllm_infer.effective_card import fit_card
    from rankllm_infer.engines.transformers.permutation_ids import check_permutations
    from rankllm_infer.plan import card_in_force, make_method
    from rankllm_infer.ranking.pointwise import PointwiseMethod

    own = find_folder(model, options.revision)
    encoder = _encoder_of(own)
    resolved = card_in_force(model, options, own, base=encoder)
    trusted = options.trust_remote_code
    warnings = check_remote_code(own) if trusted else ()
    folder = own.path if own.has_tokenizer else find_base(own).path
    tokenizer = load_tokenizer(folder, trust_remote_code=trusted)
    positions = _positions(own, encoder)
    if encoder is not None and positions is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    card, _ = fit_card(resolved, positions)
    resolved = replace(resolved, card=card, warnings=(*resolved.warnings, *warnings))
    method = make_method(card, _settings(card, options, free_decoding=False), tokenizer)
    if isinstance(method, PointwiseMethod):
        return resolved, PointwiseMethod(method.card, method.settings, _ExactPairWriter(method.writer, tokenizer))
    if method.sample is not None:
        check_permutations(tokenizer, method.sample)
    return resolved, method


def _settings(card: Card, options: RerankOptions, *, free_decoding: bool = True) -> RankingSettings:
    """Return the settings that affect the first prompt."""
    from rankllm_infer.ranking.settings import RankingSettings

    n_shown = {"pointwise": 1, "pairwise": 2}.get(card.kind, options.top_k_candidates)
    return RankingSettings(
        top_k_candidates=n_shown,
        system_message=options.system_message,
        instruction=options.instruction,
        free_decoding=free_decoding,
    )


def _encoder_of(own: ModelFolder) -> ModelFolder | None:
    """Return the checkpoint itself, or an adapter's locally available base, if it is an encoder."""
    found = own if own.adapter is None else _base_here(own)
    return found if found is not None and found.is_encoder else None


def _base_here(own: ModelFolder) -> ModelFolder | None:
    """Return an adapter's base if it is in a local folder; None if it would have to be downloaded."""
    from rankllm_infer.checkpoints.model_files import find_folder

    base = str((own.adapter or {}).get("base_model_name_or_path", ""))
    return find_folder(base) if Path(base).is_dir() else None


def _positions(own: ModelFolder, encoder: ModelFolder | None) -> int | None:
    """Return the number of positions of the model, if it can be determined without downloading an adapter's base."""
    from rankllm_infer.checkpoints.encoders import pair_tokens

    if encoder is not None:
        return pair_tokens(encoder, has_adapter=own.adapter is not None)
    found = own if own.adapter is None else _base_here(own)
    return None if found is None else found.positions


class _PairTextWriter:
    """Writes a pair without the model's tokenizer: nothing is truncated and no BOS is shown."""

    def __init__(self, card: PointwiseCard) -> None:
        self._card = card

    def write(self, query: str, *, title: str, text: str, instruction: str | None = None) -> Prompt:
        from rankllm_infer.engines.base import Prompt

        template, tokens = self._card.template, self._card.tokens_read
        if template.layout == "raw":
            (turn,) = template.render(query, f"{title} {text}" if title else text, instruction)
            return Prompt(text=turn.content, read="first-token" if tokens else "head", identifiers=tokens)
        if template.layout == "pair":
            return Prompt(text=f"{query}\n{title} {text}" if title else f"{query}\n{text}", read="head")
        passage = template.passage.format(title=title, text=text)
        return Prompt(text=template.query.format(query=query) + "\n" + passage, read="head")


class _ComparisonTextWriter:
    """Writes a comparison without the model's tokenizer: nothing is truncated and no BOS is shown."""

    def __init__(self, card: PairwiseCard) -> None:
        self._card = card

    def write(self, query: str, passage_a: str, passage_b: str) -> Prompt:
        from rankllm_infer.engines.base import Prompt

        (turn,) = self._card.template.render(query, passage_a, passage_b)
        return Prompt(text=turn.content, read="first-token", identifiers=self._card.tokens_read)


class _ExactPairWriter:
    """Writes a pair and decodes its token ids, so that truncation and BOS are visible."""

    def __init__(self, writer: PairWriter, tokenizer: Any) -> None:
        self._writer = writer
        self._tokenizer = tokenizer

    def write(self, query: str, *, title: str, text: str, instruction: str | None = None) -> Prompt:
        prompt = self._writer.write(query, title=title, text=text, instruction=instruction)
        if prompt.read != "head":
            return prompt
        return replace(prompt, text=self._tokenizer.decode(list(prompt.token_ids)))


def _estimated_tokens(prompt: Prompt) -> int:
    from rankllm_infer.ranking.prompts import estimate_text_tokens, estimate_tokens

    return estimate_tokens(prompt.messages) if prompt.messages else estimate_text_tokens(prompt.text)


def rendered_to_dict(rendered: RenderedPrompt) -> dict[str, object]:
    """Convert the rendered prompt to plain values for JSON."""
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

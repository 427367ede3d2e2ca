"""Probe of a checkpoint: the model's scores for a few fixed prompts, recorded in the card that is saved with it.

The prompts come from the encoders of rankllm_core that inference uses too. Under ZeRO-3, every process must run the
forward passes. Shapes: B rows, T tokens, N passages per query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rankllm_core.card import Card, ListwiseCard, PointwiseCard
from rankllm_core.errors import ConfigError, ContractError
from rankllm_core.probe import TOLERANCES, Probe, new_requests, recorded
from rankllm_core.prompts.chat import ChatEncoder
from rankllm_core.prompts.pairs import PairEncoder, PairLimits
from rankllm_core.prompts.tokens import SafeTokenizer, single_ids
from rankllm_core.text import passage_text, safe_query
from rankllm_core.types import Request, identifiers

if TYPE_CHECKING:
    from torch import Tensor

_OPENING = "["


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePrompt:
    """One query of a probe, as token ids."""

    request: Request
    rows: tuple[tuple[int, ...], ...]
    """Pointwise: one per passage. Listwise: one for all passages."""
    n_first: tuple[int, ...] | None = None
    """Number of leading ids of the first token type in each row, for encoders, which also get an attention mask; None
    for decoders."""
    read_ids: tuple[int, ...] = ()
    """Tokens whose logits are read at the end of a row: identifiers, or yes and no; empty with a score layer."""


def probe_prompts(card: Card, tokenizer: Any, *, positions: int | None) -> tuple[ProbePrompt, ...]:
    """Return the prompts of a new probe; empty if this model cannot be probed.

    It cannot if an identifier is more than one token, which only generation supports, or if a prompt has more tokens
    than the model has positions (None: no limit).
    """
    write = _listwise if isinstance(card, ListwiseCard) else _pointwise
    try:
        prompts = tuple(write(card, tokenizer, request) for request in new_requests())  # type: ignore[arg-type]
    except ContractError:
        return ()
    longest = max(len(row) for prompt in prompts for row in prompt.rows)
    return () if positions is not None and longest > positions else prompts


def _listwise(card: ListwiseCard, tokenizer: Any, request: Request) -> ProbePrompt:
    chat = ChatEncoder(tokenizer, layout=card.template.chat_layout, bos=card.bos)
    labels = identifiers("alpha" if card.identifiers == "alpha" else "numeric", len(request.candidates))
    messages = card.template.render(
        safe_query(request.query.text, alpha=card.identifiers == "alpha"),
        [passage_text(candidate.doc) for candidate in request.candidates],
        labels=labels,
        scores=[candidate.score for candidate in request.candidates],
    )
    row = chat.encode(messages, opening=_OPENING).token_ids
    read_ids = single_ids(chat.safe, labels, after=_OPENING)
    return ProbePrompt(request=request, rows=(tuple(row),), read_ids=tuple(read_ids))


def _pointwise(card: PointwiseCard, tokenizer: Any, request: Request) -> ProbePrompt:
    limits = PairLimits(query_tokens=card.query_tokens, passage_tokens=card.passage_tokens)
    encoder = PairEncoder(tokenizer, card.template, limits=limits, bos=card.bos, append_eos=card.append_eos)
    texts = [passage_text(candidate.doc) for candidate in request.candidates]
    pairs = [encoder.encode_typed(request.query.text, title="", text=text) for text in texts]
    read_ids: Sequence[int] = ()
    if card.tokens_read:
        end = encoder.encode_question(request.query.text, title="", text=texts[0])[0][-1:]
        read_ids = single_ids(SafeTokenizer(tokenizer), card.tokens_read, after=end)
    return ProbePrompt(
        request=request,
        rows=tuple(tuple(ids) for ids, _ in pairs),
        n_first=tuple(n for _, n in pairs) if card.template.layout == "pair" else None,
        read_ids=tuple(read_ids),
    )


def read_probe(model: Any, prompts: Sequence[ProbePrompt], *, pad: int, precision: str) -> Probe | None:
    """Return the probe of a model, from a lean forward pass (`models.lean_forward`); None if its scores are not finite.

    model: as the trainer holds it, wrapped only if it cannot be called otherwise. pad: token that pads the rows.
    precision: compute dtype of the trainer.
    """
    import torch

    if not prompts:
        return None
    forward, dtype = _best_forward(model, precision)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            scores = [_scores(forward(**_inputs(prompt, model, pad=pad)), prompt) for prompt in prompts]
    finally:
        model.train(was_training)
    try:
        return recorded([prompt.request for prompt in prompts], scores, dtype=dtype)
    except ConfigError:
        return None  # not finite: the loss, computed from the same weights, ends the run


def _best_forward(model: Any, precision: str) -> tuple[Any, str]:
    """Return the forward pass of the highest precision that the model's weights and attention allow, and its dtype.

    accelerate wraps a model's forward in autocast and keeps the original, so float32 weights are probed in float32.
    """
    weights = {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.is_floating_point()}
    dtype = max(weights & TOLERANCES.keys(), key=lambda name: TOLERANCES[name].relative, default="float32")
    own = vars(model).get("_original_forward")
    takes_float32 = "flash" not in str(getattr(model.config, "_attn_implementation", ""))
    # Weights of several dtypes, such as a frozen bfloat16 base below a new head, need autocast.
    if own is not None and takes_float32 and len(weights) == 1:
        return own, dtype
    return model, max(dtype, precision, key=lambda name: TOLERANCES[name].relative)


def _inputs(prompt: ProbePrompt, model: Any, *, pad: int) -> Mapping[str, Tensor]:
    import torch

    longest = max(map(len, prompt.rows))
    device = next(model.parameters()).device
    inputs = {
        "input_ids": torch.tensor([[*row, *[pad] * (longest - len(row))] for row in prompt.rows], device=device),
        "read_positions": torch.tensor([len(row) - 1 for row in prompt.rows], device=device),
    }
    lengths = [len(row) for row in prompt.rows]
    if prompt.n_first is not None:
        mask = [[1] * n + [0] * (longest - n) for n in lengths]
        inputs["attention_mask"] = torch.tensor(mask, device=device)
    if any(prompt.n_first or ()):
        types = [
            [0] * first + [1] * (n - first) + [0] * (longest - n)
            for first, n in zip(prompt.n_first or (), lengths, strict=True)
        ]
        inputs["token_type_ids"] = torch.tensor(types, device=device)
    if prompt.read_ids:
        inputs["read_ids"] = torch.tensor([prompt.read_ids] * len(prompt.rows), device=device)
    return inputs


def _scores(out: Mapping[str, Tensor], prompt: ProbePrompt) -> list[float]:
    """Return scores_N as inference reads them."""
    if "scores" in out:
        return [float(score) for score in out["scores"]]
    logits = out["read_logits"].tolist()
    if len(prompt.rows) == 1 and len(prompt.request.candidates) > 1:
        return [float(logit) for logit in logits[0]]
    return [float(row[0] - row[1] if len(row) == 2 else row[0]) for row in logits]

"""Recording and recomputing probes: a few prompts with a model's scores, stored in its card to verify it later."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rankllm_core.card import CARD_NAME, Card, write_card_file
from rankllm_core.checkpoints.weights import read_weight_headers
from rankllm_core.errors import ConfigError, ContractError, RankLLMError
from rankllm_core.files import check_output
from rankllm_core.files.manifest import MANIFEST_NAME, read_manifest, write_manifest
from rankllm_core.probe import MOST_PASSAGES, Comparison, Probe, new_requests, recorded
from rankllm_core.types import Request, Result
from rankllm_infer.checkpoints.model_files import ModelFiles
from rankllm_infer.engines.base import Engine
from rankllm_infer.ranking.flow import RankingMethod
from rankllm_infer.ranking.listwise import ListwiseMethod
from rankllm_infer.ranking.pairwise import PairwiseMethod
from rankllm_infer.ranking.pointwise import PointwiseMethod
from rankllm_infer.ranking.prompts import TokenPromptWriter, check_identifiers
from rankllm_infer.ranking.settings import RankingSettings
from rankllm_infer.scheduling.pool import FlowPool

VERIFIED_PARAMETERS = 1_000_000_000
"""Models with at most this many parameters are verified by default."""
_ANY_LENGTH = 1 << 20
"""Tokens or words: a probe is never truncated to the card's limits."""
_SUSPECTS = "check the base model, adapter, template, BOS rule, quantization and score head"


def record(method: RankingMethod, engine: Engine) -> Probe:
    """Record a probe of a loaded model, in the dtype it runs in. Raises RankLLMError if the model returns no scores."""
    return _answered(method, engine, new_requests())


def compare(method: RankingMethod, engine: Engine, probe: Probe) -> Comparison:
    """Recompute a probe and pair it with the recorded one. Raises RankLLMError if the model returns no scores."""
    return Comparison(recorded=probe, found=_answered(method, engine, probe.requests()))


def verification_notes(
    method: RankingMethod, engine: Engine, *, asked: bool | None, files: ModelFiles | None
) -> tuple[str, ...]:
    """Verify a loaded model; return warnings, none if its scores match the recorded ones.

    asked: whether to verify; None: models with a probe and at most VERIFIED_PARAMETERS. files: location of its weights.
    """
    probe = method.card.probe
    if asked is False or (asked is None and (probe is None or files is None)):
        return ()
    if probe is None:
        return ("--verify: the model's card contains no probe to compare with; record one with `rankllm-infer probe`",)
    if asked is None and files is not None and n_parameters(files) > VERIFIED_PARAMETERS:
        return ()
    try:
        comparison = compare(method, engine, probe)
    except RankLLMError as error:
        return (f"the model could not be verified with the probe in its card: {error}",)
    return () if comparison.agrees else (mismatch(comparison),)


def mismatch(comparison: Comparison) -> str:
    """Describe a model whose scores differ from the recorded ones, in one line with both and possible causes."""
    return f"the model's scores differ from those recorded in its card (probe): {comparison}; {_SUSPECTS}"


def n_parameters(files: ModelFiles) -> int:
    """Count the parameters of a model, without an adapter, from the headers of its weight files.

    Pickled weights have no header and are counted as two bytes per parameter. Raises RankLLMError if weights are
    missing.
    """
    folder = files.with_weights().base.path
    shapes = [tensor.shape for tensor in read_weight_headers(folder).values()]
    return sum(map(math.prod, shapes)) or sum(path.stat().st_size for path in folder.glob("*.bin")) // 2


def _answered(method: RankingMethod, engine: Engine, requests: Sequence[Request]) -> Probe:
    dtype = getattr(engine, "dtype", None)
    if dtype is None:
        raise RankLLMError(
            f"engine {engine.name!r} reports neither dtype nor logits; use --engine transformers or vllm"
        )
    probed = _probed(method)
    results = FlowPool(engine, max_active=probed.max_active).run(requests, probed.flow)
    return recorded(requests, [_scores(result) for result in results], dtype=str(dtype))


def _probed(method: RankingMethod) -> RankingMethod:
    """Return a method with the same prompts that yields raw model scores: one window, no prior, no fusing, no
    truncation.

    A replaced system message and few-shot examples are part of every prompt and are kept. An instruction is not: it
    varies between requests, so the template's own is used.
    """
    if isinstance(method, PointwiseMethod):
        return PointwiseMethod(replace(method.card, fuse_weight=0.0), RankingSettings(), method.writer)
    if isinstance(method, PairwiseMethod):
        return PairwiseMethod(replace(method.card, fuse_weight=0.0), RankingSettings(), method.writer)
    if not isinstance(method, ListwiseMethod) or not isinstance(method.writer, TokenPromptWriter):
        raise ContractError(f"a {method.card.kind} reranker with this engine supports no probe")
    card = replace(
        method.card,
        answer="first-token",
        identifier_prior=(),
        fuse_weight=0.0,
        window_size=MOST_PASSAGES,
        stride=MOST_PASSAGES,
        context_tokens=_ANY_LENGTH,
        max_passage_words=_ANY_LENGTH,
    )
    check_identifiers(method.writer.safe, card)
    asked = method.settings
    settings = RankingSettings(system_message=asked.system_message, few_shot=asked.few_shot)
    return ListwiseMethod(card, settings, method.writer)


def _scores(result: Result) -> list[float]:
    """Return the model's scores in passage order; docids are the passages' positions."""
    scores = {int(candidate.docid): candidate.model_score for candidate in result.candidates}
    if result.status == "failed" or None in scores.values():
        raise RankLLMError(result.error or f"no scores for query {result.query.text!r} ({'; '.join(result.defects)})")
    return [float(scores[position]) for position in sorted(scores)]  # type: ignore[arg-type]


def card_file(model: str, card: Card, *, output: Path | None, write: bool, overwrite: bool) -> Path | None:
    """Return the file to write a card with a new probe to, before a model is loaded; None if nothing is written.

    output: explicit file name. write: write the card into the model's folder. Raises RankLLMError if the file must not
    be replaced, or if a model on the hub has no local folder.
    """
    if output is not None:
        check_output(output, overwrite=overwrite)
        return output
    if not write:
        return None
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise ConfigError(
            f"--write: {model} is not a local folder, so the card cannot be stored there; use --output FILE"
        )
    if card.probe is not None and not overwrite:
        raise ConfigError(f"--write: {folder / CARD_NAME} already contains a probe; use --overwrite to replace it")
    if (folder / MANIFEST_NAME).exists():
        read_manifest(folder)  # reports a damaged manifest before the model is loaded
    return folder / CARD_NAME


def write_card(card: Card, path: Path) -> None:
    """Write a card to a file and update the folder's manifest, if there is one. Raises OSError."""
    write_card_file(card, path)
    if path.name == CARD_NAME and (path.parent / MANIFEST_NAME).exists():
        known = read_manifest(path.parent)
        others = {name: entry for name, entry in known.files.items() if name != CARD_NAME}
        write_manifest(path.parent, step=known.step, known=others)

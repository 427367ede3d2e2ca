"""Probes recomputed: what a loaded model answers to a few prompts, to be recorded in its card or compared with it."""

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
"""Models of at most so many parameters are verified by default."""
_ANY_LENGTH = 1 << 20
"""Tokens or words: what a probe shows is never cut to a card's limits."""
_SUSPECTS = "check the base model, adapter, template, BOS rule, quantization and score head"


def record(method: RankingMethod, engine: Engine) -> Probe:
    """A new probe of a loaded model, in the dtype in which it runs. Raises RankLLMError where it cannot be read."""
    return _answered(method, engine, new_requests())


def compare(method: RankingMethod, engine: Engine, probe: Probe) -> Comparison:
    """A probe beside the same one recomputed. Raises RankLLMError where the model cannot be read."""
    return Comparison(recorded=probe, found=_answered(method, engine, probe.requests()))


def verification_notes(
    method: RankingMethod, engine: Engine, *, asked: bool | None, files: ModelFiles | None
) -> tuple[str, ...]:
    """What the verification of a loaded model has to say: nothing where its scores are the recorded ones.

    asked: whether to verify; None for models up to VERIFIED_PARAMETERS that have a probe. files: where its weights are.
    """
    probe = method.card.probe
    if asked is False or (asked is None and (probe is None or files is None)):
        return ()
    if probe is None:
        return ("--verify: the model's card holds no probe to compare with; rankllm-infer probe records one",)
    if asked is None and files is not None and n_parameters(files) > VERIFIED_PARAMETERS:
        return ()
    try:
        comparison = compare(method, engine, probe)
    except RankLLMError as error:
        return (f"the model cannot be verified by the probe in its card: {error}",)
    return () if comparison.agrees else (mismatch(comparison),)


def mismatch(comparison: Comparison) -> str:
    """One line on a model that does not give its recorded scores: both, and what may be wrong."""
    return f"the model's scores are not those that its card recorded (probe): {comparison}; {_SUSPECTS}"


def n_parameters(files: ModelFiles) -> int:
    """Numbers in a model's weights, an adapter left out, by the headers of their files.

    Pickled weights have no header: two bytes are taken for a number. Raises RankLLMError where there are no weights.
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
    """The same prompts, read for the model's own scores: one window, no prior, no fusing, nothing cut short.

    A message that replaces the system's and few-shot examples are parts of every prompt, and stay. An instruction is
    not: requests differ in it, and the template's own is used.
    """
    if isinstance(method, PointwiseMethod):
        return PointwiseMethod(replace(method.card, fuse_weight=0.0), RankingSettings(), method.writer)
    if isinstance(method, PairwiseMethod):
        return PairwiseMethod(replace(method.card, fuse_weight=0.0), RankingSettings(), method.writer)
    if not isinstance(method, ListwiseMethod) or not isinstance(method.writer, TokenPromptWriter):
        raise ContractError(f"a {method.card.kind} reranker has no probe here")
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
    """The model's scores in the order of the passages, which are called by their positions."""
    scores = {int(candidate.docid): candidate.model_score for candidate in result.candidates}
    if result.status == "failed" or None in scores.values():
        raise RankLLMError(result.error or f"no scores for query {result.query.text!r} ({'; '.join(result.defects)})")
    return [float(scores[position]) for position in sorted(scores)]  # type: ignore[arg-type]


def card_file(model: str, card: Card, *, output: Path | None, write: bool, overwrite: bool) -> Path | None:
    """The file that a card with a new probe is written to, before a model is loaded; None where nothing is.

    output: a file of that name. write: the card of the model's folder. Raises RankLLMError where it must not be
    replaced, and where a model of the hub has no folder of its own.
    """
    if output is not None:
        check_output(output, overwrite=overwrite)
        return output
    if not write:
        return None
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"--write: {model} is no folder that could keep the card; use --output FILE")
    if card.probe is not None and not overwrite:
        raise ConfigError(f"--write: {folder / CARD_NAME} holds a probe; --overwrite replaces it")
    if (folder / MANIFEST_NAME).exists():
        read_manifest(folder)  # a damaged one is said now
    return folder / CARD_NAME


def write_card(card: Card, path: Path) -> None:
    """Write a card to a file; in a folder with a manifest, that one lists the card as it is now. Raises OSError."""
    write_card_file(card, path)
    if path.name == CARD_NAME and (path.parent / MANIFEST_NAME).exists():
        known = read_manifest(path.parent)
        others = {name: entry for name, entry in known.files.items() if name != CARD_NAME}
        write_manifest(path.parent, step=known.step, known=others)

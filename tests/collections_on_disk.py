"""Small collections written by a test: runs, judgements, queries and corpora, with every number chosen by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Collection:
    """A folder with a collection in it."""

    folder: Path

    def path(self, name):
        """The name of a file in it."""
        return self.folder / name

    def run(self, rankings, name="run.trec"):
        """rankings: qid -> {docid: score}."""
        lines = [
            f"{qid} Q0 {docid} {rank} {score} t\n"
            for qid, ranking in rankings.items()
            for rank, (docid, score) in enumerate(ranking.items(), start=1)
        ]
        return self._write(name, lines)

    def qrels(self, grades, name="qrels.txt"):
        """grades: qid -> {docid: grade}."""
        return self._write(name, [f"{q} 0 {d} {g}\n" for q, judged in grades.items() for d, g in judged.items()])

    def queries(self, texts, name="queries.tsv"):
        """texts: qid -> text."""
        return self._write(name, [f"{qid}\t{text}\n" for qid, text in texts.items()])

    def corpus(self, texts, name="corpus.jsonl"):
        """texts: docid -> text, or (title, text)."""
        rows = [(docid, *(("", text) if isinstance(text, str) else text)) for docid, text in texts.items()]
        return self.jsonl([{"docid": docid, "title": title, "text": text} for docid, title, text in rows], name)

    def jsonl(self, records, name):
        """JSON Lines."""
        return self._write(name, [json.dumps(record) + "\n" for record in records])

    def read(self, name):
        """The records of a JSON Lines file."""
        return [json.loads(line) for line in self.path(name).read_text(encoding="utf-8").splitlines()]

    def _write(self, name, lines):
        path = self.path(name)
        path.write_text("".join(lines), encoding="utf-8")
        return path


def judged_sources(files, *, run, qrels, queries, corpus, teacher=None):
    """The files of a collection with judgements, written; teacher: a better model's run."""
    from rankllm_train.preparation.judgements import JudgedSources

    return JudgedSources(
        run=files.run(run),
        qrels=files.qrels(qrels),
        queries=files.queries(queries),
        corpus=files.corpus(corpus),
        teacher_run=None if teacher is None else files.run(teacher, "teacher.trec"),
    )


def counts(tally):
    """(kind, reason) -> number left out."""
    return {key: losses.n for key, losses in tally.left_out.items()}

"""Small test collection bundled with the package: used by the demo, and for first experiments."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoCollection:
    """Passages, queries and judgements, each in file order."""

    corpus: Mapping[str, Mapping[str, str]]
    """docid -> `title` (may be empty) and `text`."""
    queries: Mapping[str, str]
    """qid -> text."""
    qrels: Mapping[str, Mapping[str, int]]
    """qid -> docid -> grade: 2 answers the query, 1 helps, 0 was judged not to help; missing docids are unjudged."""


def demo_folder() -> Traversable:
    """Return the folder with corpus.jsonl, queries.tsv, qrels.txt and README.md, read-only inside the installed
    package."""
    return files("rankllm_infer") / "demo_data"


def load_demo_collection() -> DemoCollection:
    """Read the collection. It is part of the package, so an error in it is a bug and keeps its traceback."""
    folder = demo_folder()
    corpus: dict[str, dict[str, str]] = {}
    for line in _lines(folder / "corpus.jsonl"):
        record = json.loads(line)
        corpus[record["docid"]] = {"title": record["title"], "text": record["text"]}
    queries = dict(line.split("\t", maxsplit=1) for line in _lines(folder / "queries.tsv"))
    qrels: dict[str, dict[str, int]] = {}
    for line in _lines(folder / "qrels.txt"):
        qid, _, docid, grade = line.split()
        qrels.setdefault(qid, {})[docid] = int(grade)
    return DemoCollection(corpus=corpus, queries=queries, qrels=qrels)


def _lines(file: Traversable) -> list[str]:
    # Not splitlines(), which also splits at U+2028 and similar characters inside a text.
    return [line for line in file.read_text(encoding="utf-8").split("\n") if line]

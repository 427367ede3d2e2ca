"""Web-like passages: pieces of about fifty words without a title, split at sentence ends.

The training collections have titles and long passages; a model trained only on those relies on titles, which most
passages lack. The docid of a piece is its passage's followed by #0, #1, ...
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from rankllm_core.data.collections import read_corpus
from rankllm_core.files import dumps, write_text
from rankllm_core.trec.qrels import Qrels
from rankllm_core.trec.runs import Run, write_run

ENOUGH_WORDS, MOST_WORDS, FEW_WORDS = 45, 80, 12
POOL_DEPTH = 30
"""Number of BM25 candidates used."""
GOOD_ANSWER, NEAR_THE_TOP = 0.4, 3
"""Minimum cosine and maximum rank of the piece that a question was generated from."""
PIECES_OF_ONE = 12
"""Maximum number of pieces considered per relevant passage, from its start."""


def split_passage(text: str) -> list[str]:
    """Group sentences until there are enough words; long ones are split, a short remainder joins the previous piece."""
    pieces: list[list[str]] = [[]]
    for sentence in _sentences(text):
        if pieces[-1] and (len(pieces[-1]) >= ENOUGH_WORDS or len(pieces[-1]) + len(sentence) > MOST_WORDS):
            pieces.append([])
        pieces[-1] += sentence
    if len(pieces) > 1 and len(pieces[-1]) < FEW_WORDS:
        rest = pieces.pop()
        pieces[-1] += rest
    return [" ".join(words) for words in pieces if words]


def _sentences(text: str) -> Iterator[list[str]]:
    for sentence in re.split(r"(?<=[.!?])\s+", text.strip()):
        words = sentence.split()
        for start in range(0, len(words), MOST_WORDS):
            yield words[start : start + MOST_WORDS]


def plain(text: str) -> str:
    """Return text as it was before a tokenizer separated its punctuation."""
    text = text.replace("``", '"').replace("''", '"')
    text = re.sub(r" ([.,;:!?)\]%]|'s\b|n't\b|')", r"\1", text)
    text = re.sub(r"([(\[$]) ", r"\1", text)
    text = re.sub(r'" ([^"]*?) "', r'"\1"', text)
    return re.sub(r"(\w) - (\w)", r"\1-\2", text)


def passage_of(docid: str) -> str:
    """Return the passage that a piece belongs to; a passage belongs to itself."""
    return docid.partition("#")[0]


def write_pieces(corpus: Path, target: Path) -> None:
    """Write the pieces of a corpus as a corpus."""
    with write_text(target) as stream:
        for docid, doc in read_corpus(corpus):
            for number, piece in enumerate(split_passage(str(doc["text"]))):
                stream.write(dumps({"docid": f"{docid}#{number}", "title": "", "text": piece}) + "\n")


def write_plain(corpus: Path, target: Path) -> None:
    """Write a corpus in plain text."""
    with write_text(target) as stream:
        for docid, doc in read_corpus(corpus):
            stream.write(dumps({"docid": docid, "title": doc["title"], "text": plain(str(doc["text"]))}) + "\n")


def write_pool(target: Path, run: Run, qrels: Qrels, docids: Sequence[str]) -> None:
    """Write BM25's candidates, followed by pieces of relevant passages that it did not retrieve."""
    pieces: dict[str, list[str]] = defaultdict(list)
    for docid in docids:
        pieces[passage_of(docid)].append(docid)
    pools = {}
    for qid, ranking in run.items():
        found = [docid for docid, _ in ranking][:POOL_DEPTH]
        wanted = [piece for docid in relevant(qrels, qid) for piece in pieces[docid][:PIECES_OF_ONE]]
        pool = list(dict.fromkeys([*found, *wanted]))
        pools[qid] = [(docid, float(-rank)) for rank, docid in enumerate(pool)]
    write_run(target, pools.items())


def judge_pieces(teacher: Run, qrels: Qrels) -> tuple[dict[str, str], Run]:
    """Return query -> best piece of a relevant passage, and the run without other pieces, which may also answer."""
    best: dict[str, str] = {}
    kept = {}
    for qid, ranking in teacher.items():
        passages = set(relevant(qrels, qid))
        ordered = sorted(ranking, key=lambda pair: -pair[1])
        answers = [docid for docid, _ in ordered if passage_of(docid) in passages]
        if answers:
            best[qid] = answers[0]
            kept[qid] = [(docid, score) for docid, score in ordered if docid not in answers[1:]]
    return best, kept


def judge_answers(teacher: Run, unasked: Set[str] = frozenset()) -> tuple[dict[str, str], Run]:
    """Return the questions generated from a piece that the piece answers well according to the teacher.

    unasked: passages whose questions are left out.

    Returns:
        Query -> its best piece; the teacher's run for these questions.
    """
    best: dict[str, str] = {}
    kept = {}
    for qid, ranking in teacher.items():
        ordered = sorted(ranking, key=lambda pair: -pair[1])
        if passage_of(qid) not in unasked and qid in [
            docid for docid, score in ordered[:NEAR_THE_TOP] if score >= GOOD_ANSWER
        ]:
            best[qid] = ordered[0][0]
            kept[qid] = ordered
    return best, kept


def write_qrels(target: Path, qrels: Qrels) -> None:
    """Write qrels in TREC format."""
    with write_text(target) as stream:
        stream.writelines(
            f"{qid} 0 {docid} {grade}\n" for qid, judged in qrels.items() for docid, grade in judged.items()
        )


def relevant(qrels: Qrels, qid: str) -> list[str]:
    """Return the docids judged relevant to a query."""
    return [docid for docid, grade in qrels.get(qid, {}).items() if grade > 0]

"""Passages as the web has them: pieces of some fifty words without a title, cut at the ends of sentences.

The training collections have titles, and long passages; a model that learned from those alone leans on titles that most
passages do not have. A piece's docid is its passage's with #0, #1, ... behind it.
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
"""Of BM25's candidates."""
GOOD_ANSWER, NEAR_THE_TOP = 0.4, 3
"""The cosine and the rank of a piece that a question was made up from."""
PIECES_OF_ONE = 12
"""Pieces of a relevant passage that are looked at, from its beginning."""


def split_passage(text: str) -> list[str]:
    """Sentences until there are enough words; one that is too long is cut, a short rest joins the piece before."""
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
    """Text as it was before a tokenizer set its punctuation apart."""
    text = text.replace("``", '"').replace("''", '"')
    text = re.sub(r" ([.,;:!?)\]%]|'s\b|n't\b|')", r"\1", text)
    text = re.sub(r"([(\[$]) ", r"\1", text)
    text = re.sub(r'" ([^"]*?) "', r'"\1"', text)
    return re.sub(r"(\w) - (\w)", r"\1-\2", text)


def passage_of(docid: str) -> str:
    """The passage that a piece belongs to; a passage is its own."""
    return docid.partition("#")[0]


def write_pieces(corpus: Path, target: Path) -> None:
    """The pieces of a corpus, as a corpus."""
    with write_text(target) as stream:
        for docid, doc in read_corpus(corpus):
            for number, piece in enumerate(split_passage(str(doc["text"]))):
                stream.write(dumps({"docid": f"{docid}#{number}", "title": "", "text": piece}) + "\n")


def write_plain(corpus: Path, target: Path) -> None:
    """A corpus in plain text."""
    with write_text(target) as stream:
        for docid, doc in read_corpus(corpus):
            stream.write(dumps({"docid": docid, "title": doc["title"], "text": plain(str(doc["text"]))}) + "\n")


def write_pool(target: Path, run: Run, qrels: Qrels, docids: Sequence[str]) -> None:
    """BM25's candidates, and behind them the pieces of relevant passages that it did not find."""
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
    """Query -> the relevant passages' best piece by the teacher; its run without the others, which may answer too."""
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
    """Of questions made up from a piece, and named by it, those that it answers well by the teacher.

    unasked: passages that no question may come from.

    Returns:
        Query -> its best piece; the teacher's run of these questions.
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
    """In TREC's format."""
    with write_text(target) as stream:
        stream.writelines(
            f"{qid} 0 {docid} {grade}\n" for qid, judged in qrels.items() for docid, grade in judged.items()
        )


def relevant(qrels: Qrels, qid: str) -> list[str]:
    """The docids judged relevant to a query."""
    return [docid for docid, grade in qrels.get(qid, {}).items() if grade > 0]

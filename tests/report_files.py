"""A small ranking to be explained, whose figures are counted by hand, and texts that would take over a page."""

from __future__ import annotations

import json
from pathlib import Path

QRELS = "q1 0 c 2\nq1 0 x 1\nq1 0 a 0\nq2 0 b 1\nq3 0 a 1\n"
BASELINE = """\
q1 Q0 a 1 4 bm25
q1 Q0 b 2 3 bm25
q1 Q0 x 3 2 bm25
q1 Q0 c 4 1 bm25
q2 Q0 b 1 2 bm25
q2 Q0 a 2 1 bm25
q3 Q0 a 1 1 bm25
"""
TEXTS = {"a": "Alder trees.", "b": "Birch trees.", "c": "Cedar trees.", "x": "Larches."}
HOSTILE = "</script></style><script>hacked=1</script><img src=x onerror='hacked=1'>\"' {{ 7 * 7 }}"
"""Markup and template code, in one text."""


def candidate(docid: str, score: float, told: float | None = None) -> dict[str, object]:
    return {"docid": docid, "score": score, "doc": {"title": "", "text": TEXTS[docid]}, "model_score": told}


def result(qid: str, *candidates: dict[str, object], status: str = "ok", defects: tuple[str, ...] = ()) -> dict:
    usage = {"calls": 1, "rounds": 1, "prompt_tokens": 100, "completion_tokens": 20}
    query = {"text": f"which trees, {qid}?", "qid": qid}
    return {"query": query, "candidates": candidates, "status": status, "defects": defects, "usage": usage}


# RR: q1 1/3 -> 1, since c came from the fourth place to the first; q2 1 -> 1/2; q3 1 -> 0, it is not in the results.
RESULTS = [
    result("q1", candidate("c", 3, 2.5), candidate("a", 2, 1.5), candidate("b", 1)),
    result("q2", candidate("a", 2), candidate("b", 1), status="repaired", defects=("missing [2]",)),
]
CALL = {
    "prompt": "Rank [1] Birch trees. [2] Alder trees.",
    "response": "[2]",
    "input_token_count": 100,
    "output_token_count": 20,
    "start": 0,
    "docids": ["b", "a"],
    "order": [1, 0],
    "scores": None,
    "status": "repaired",
    "defects": ["missing [1]"],
}
TRACE = [{"query": RESULTS[1]["query"], "invocations_history": [CALL]}]


def write_lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def write_files(folder: Path) -> None:
    """qrels, base.run, new.jsonl, new.trace and requests.jsonl (the baseline's order, without x)."""
    (folder / "qrels").write_text(QRELS, encoding="utf-8")
    (folder / "base.run").write_text(BASELINE, encoding="utf-8")
    write_lines(folder / "new.jsonl", RESULTS)
    write_lines(folder / "new.trace", TRACE)
    requests = {"q1": "abc", "q2": "ba", "q3": "a"}
    write_lines(folder / "requests.jsonl", [result(q, *(candidate(d, 0) for d in ds)) for q, ds in requests.items()])


HOSTILE_QID = "<script>hacked=1</script>"
"""The same where a text may hold no blank."""


def write_hostile_files(folder: Path) -> None:
    """qrels, base.run, hostile.jsonl and hostile.trace of one query, with HOSTILE wherever a file may hold a text."""
    passage = {"title": HOSTILE, "text": HOSTILE + " long" * 200}
    candidates = [candidate("c", 2, 1.0) | {"docid": HOSTILE, "doc": passage}, candidate("a", 1)]
    query = {"qid": HOSTILE_QID, "text": HOSTILE + "\ud800\x00\u202e"}
    texts = {"prompt": HOSTILE, "response": HOSTILE, "defects": [HOSTILE] * 10}
    call = CALL | texts | {"docids": [HOSTILE, "a"]}
    write_lines(folder / "hostile.jsonl", [result("", *candidates, status="repaired") | {"query": query}])
    write_lines(folder / "hostile.trace", [{"query": query, "invocations_history": [call]}])
    (folder / "qrels").write_text(f"{HOSTILE_QID} 0 a 1\n", encoding="utf-8")
    (folder / "base.run").write_text(f"{HOSTILE_QID} Q0 a 1 1 t\n", encoding="utf-8")

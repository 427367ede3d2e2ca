"""The path of one query: the number of our files it passes, and its stack depth at the engine."""

from __future__ import annotations

import json
import sys
from types import CodeType, FrameType

import pytest
from shared_files import REPOSITORY

pytest.importorskip("torch")

from rankllm_infer.cli import main

MOST_FILES, MOST_FRAMES = 60, 12
"""A further file on the path needs a reason: its code may belong in an existing one."""
SOURCES = (str(REPOSITORY / "packages"), str(REPOSITORY / "shared"))


def is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(SOURCES)


class Way:
    """Records calls of our functions, except code that runs while importing a module."""

    def __init__(self) -> None:
        self.codes: set[CodeType] = set()
        self.frames: list[str] = []
        """Functions on the stack, innermost first, at the engine's first prompt."""

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        # Bodies of classes and modules are no functions (CO_OPTIMIZED).
        if event != "call" or code in self.codes or not is_ours(code) or not code.co_flags & 1:
            return
        stack = [above.f_code for above in frames_of(frame) if is_ours(above.f_code)]
        if any(above.co_name == "<module>" for above in stack):
            return
        self.codes.add(code)
        if code.co_qualname == "TransformersEngine.submit":
            self.frames = [above.co_qualname for above in stack]


def frames_of(frame: FrameType | None):
    while frame is not None:
        yield frame
        frame = frame.f_back


def test_a_query_goes_straight_to_the_engine(smollm2_path, tmp_path, monkeypatch):
    """A query with three passages, ranked by generation on a CPU, from the command line to the written run."""
    passages = ("The cat sat on the mat.", "Paris is the capital of France.", "Bananas are yellow.")
    candidates = [{"docid": f"d{i}", "score": -i, "doc": {"text": text}} for i, text in enumerate(passages)]
    (tmp_path / "one.jsonl").write_text(
        json.dumps({"query": {"qid": "q1", "text": "capital of France"}, "candidates": candidates}) + "\n"
    )
    files = ["--requests", str(tmp_path / "one.jsonl"), "--output", str(tmp_path / "one.trec")]
    model = ["--model-path", str(smollm2_path), "--method", "listwise", "--context-size", "2048"]
    monkeypatch.setattr(sys, "argv", ["rankllm-infer", "rerank", *files, *model])
    way = Way()
    sys.setprofile(way)
    try:
        with pytest.raises(SystemExit) as end:
            main()
    finally:
        sys.setprofile(None)
    assert end.value.code == 0
    assert len((tmp_path / "one.trec").read_text().splitlines()) == 3
    passed = sorted({code.co_filename for code in way.codes})
    assert len(passed) <= MOST_FILES, "\n".join(passed)
    assert way.frames[-1] == "main"
    assert 0 < len(way.frames) <= MOST_FRAMES, " < ".join(way.frames)

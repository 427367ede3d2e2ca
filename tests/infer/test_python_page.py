"""docs/python.md runs from top to bottom, as a reader pastes it."""

from __future__ import annotations

import re

import pytest
from shared_files import REPOSITORY

PROGRAM = re.compile(r"^```py(?:thon)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.usefixtures("smollm2_path")
def test_every_program_of_the_page_runs(capsys, monkeypatch):
    """With the bundled reranker, which finds the document that answers."""
    pytest.importorskip("pandas")
    programs = PROGRAM.findall((REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8"))
    scope: dict[str, object] = {}
    shown = []
    for program in programs:
        exec(compile(program, "docs/python.md", "exec"), scope)
        shown.append(capsys.readouterr().out.splitlines())
    rank, keep, frame, many, tasks, misspelled, closed, again = shown
    assert rank[0].partition("  ")[2] == "Rayleigh scattering makes the sky blue."
    assert len(rank) == 2
    assert keep == ["a2 https://example.org/sky"]
    assert [line.split() for line in frame] == [
        ["corpus_id", "title", "url"],
        ["1", "Sky", "https://example.org/sky"],
        ["0", "Cats", "https://example.org/cats"],
    ]
    assert [line.split()[:2] for line in many] == [["qid", "status"], ["q1", "ok"], ["q2", "ok"]]
    assert [line.split(maxsplit=2)[2] for line in many[1:]] == tasks
    assert tasks == ["Rayleigh scattering makes the sky blue.", "Cats sleep most of the day."]
    assert misspelled == ["load_reranker: dtpe: unknown key; did you mean 'dtype'?"]
    assert (closed, again) == ([], ["1"])

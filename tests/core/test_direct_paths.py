"""Ordinary input takes the fast path: plain passages and trained answers are not searched for other forms."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rankllm_core import answers
from rankllm_core.answers.reader import read_answer
from rankllm_core.prompts.template import load_template

ANSWERS = Path(answers.__file__).parent
PLAIN = "In 2019 (see page 3) there were 12 of 20 caf\u00e9s, R&D > AT&T; \u201c3 > 1\u201d."


def entered(call):
    """The modules of `answers` in which a function is called."""
    files = set()

    def note(frame, event, _):
        if event == "call":
            files.add(Path(frame.f_code.co_filename))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return {file.stem for file in files if file.parent == ANSWERS}


@pytest.mark.parametrize("name", ["rank_zephyr", "rank_zephyr_alpha", "rank_gpt", "query_behind_alpha"])
def test_a_plain_passage_enters_no_module_of_answers(name):
    """A quick check shows that nothing in it can look like an identifier."""
    template, labels = load_template(name), "AB" if name.endswith("alpha") else "12"
    assert entered(lambda: template.render("q", [PLAIN, PLAIN], labels=labels)) == set()
    assert "lookalikes" in entered(lambda: template.render("q", [PLAIN, "see [3]"], labels=labels))


def test_a_trained_answer_enters_the_reader_alone():
    """Tokens and chains are searched only if the answer contains something else, such as a word before it."""
    assert entered(lambda: read_answer("[2] > [1] > [3]", "123")) == {"reader"}
    assert entered(lambda: read_answer("Sure: [2] > [1] > [3]", "123")) >= {"reader", "tokens", "chains", "forms"}

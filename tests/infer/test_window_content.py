"""A window whose prompt omits passages is reported; ordinary prompts are rendered once."""

from __future__ import annotations

import pytest
from permutation_fakes import letter_tokenizer
from ranking_fakes import WordWriter, docids, make_method, number

from rankllm_core.prompts.chat import ChatEncoder
from rankllm_core.prompts.template import load_template, template_names
from rankllm_core.types import Candidate, Query, Request
from rankllm_infer.engines.base import Answer
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.ranking.prompts import TokenPromptWriter
from rankllm_infer.scheduling.pool import FlowPool

NOTHING = "prompt holds nothing of the passage"


def request_of(texts, query="which"):
    """Passages d0, d1, ..."""
    candidates = [Candidate(docid=f"d{i}", score=-float(i), doc={"text": text}) for i, text in enumerate(texts)]
    return Request(query=Query(qid="q", text=query), candidates=candidates)


def backwards(prompt):
    """Reverses every window."""
    return Answer(text=" > ".join(f"[{label}]" for label in reversed(prompt.identifiers)))


def rerank(request, *, writer=None, answer=backwards, **plan):
    """The result and the engine."""
    engine = ScriptedEngine(answer)
    asked = make_method(writer=writer, **plan)
    (result,) = FlowPool(engine).run([request], asked.flow)
    return result, engine


def token_writer(chat_template):
    """A writer with a toy tokenizer, one token per letter, and this chat template."""
    tokenizer = letter_tokenizer()
    tokenizer.chat_template = chat_template
    return TokenPromptWriter(ChatEncoder(tokenizer))


class CountingWriter(WordWriter):
    """Counts rendered prompts, and may omit words."""

    def __init__(self, drop=lambda text: text):
        self.n = 0
        self.drop = drop

    def write(self, messages, *, opening=""):
        """The prompt without the omitted words."""
        from dataclasses import replace

        self.n += 1
        written = super().write(messages, opening=opening)
        return replace(written, text=self.drop(written.text))


@pytest.mark.parametrize("n", [2, 3, 20])
@pytest.mark.parametrize(
    "chat_template",
    ["{% for m in messages %}<{{ m.role }}>{% endfor %}", "system rank a [1] [2] 0 1 2 3 4 5 6 7"],
)
def test_a_chat_template_that_drops_the_users_text_is_reported(chat_template, n):
    """The first-stage order is kept, whatever the answer; also for single-letter passages."""
    for texts in ([f"passage {i}" for i in range(n)], [chr(97 + i) for i in range(n)]):
        result, _ = rerank(request_of(texts), writer=token_writer(chat_template))
        assert result.status == "fallback"
        assert result.defects == tuple(f"ranks 1-{n}: docid 'd{i}': {NOTHING}" for i in range(n))
        assert docids(result) == [f"d{i}" for i in range(n)]


def test_scores_of_windows_that_show_nothing_are_not_the_passages():
    """FIRST still reads a logit for each identifier."""
    writer = token_writer("{% for m in messages %}<{{ m.role }}>{% endfor %}")
    result, _ = rerank(
        request_of(["A cat", "A dog"]),
        writer=writer,
        answer=lambda prompt: Answer(scores=(1.0, 2.0)),
        template="rank_zephyr_alpha",
        card={"identifiers": "alpha", "answer": "first-token"},
    )
    assert (result.status, docids(result)) == ("fallback", ["d0", "d1"])
    assert [c.model_score for c in result.candidates] == [None, None]


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_passage_that_is_dropped_is_named(lost):
    """The others are ranked by the answer: a repair."""
    texts = ["cats sleep all day", "dogs bark", "planes fly"]
    writer = CountingWriter(lambda text: text.replace(texts[lost], "").replace(f"[{lost + 1}] 0\n", f"[{lost + 1}] \n"))
    result, _ = rerank(request_of(texts), writer=writer)
    assert result.status == "repaired"
    assert result.defects == (f"ranks 1-3: docid 'd{lost}': {NOTHING}",)
    assert docids(result) == ["d2", "d1", "d0"]


def test_passages_that_are_shown_alike_are_reported_and_copies_are_not():
    """Truncated to three words, two are equal; the third is a copy of the first except for spaces."""
    texts = ["cats sleep all day", "cats sleep all night", "cats  sleep all day\n", "dogs"]
    result, _ = rerank(request_of(texts), card={"max_passage_words": 3})
    assert result.status == "repaired"
    assert result.defects == ("ranks 1-4: docid 'd1': shown exactly as docid 'd0', whose passage differs",)
    assert docids(result) == ["d3", "d2", "d1", "d0"]
    assert rerank(request_of(texts))[0].status == "ok"


def test_a_context_that_leaves_a_word_a_passage_is_reported():
    """All begin with the same word."""
    texts = [f"the number {i} of these" for i in range(4)]
    result, _ = rerank(request_of(texts), card={"context_tokens": 125})
    assert result.status == "repaired"
    assert len(result.defects) == 3


def test_blank_passages_are_no_fault():
    """There is nothing to show."""
    result, _ = rerank(request_of(["", " \n", "cats"]))
    assert (result.status, result.defects) == ("ok", ())


@pytest.mark.parametrize("template", [n for n in template_names() if load_template(n).kind == "listwise"])
def test_every_template_shows_its_passages_and_is_written_once(template):
    """Passages contained in each other, in the query or in the template, or changed by neutralization."""
    texts = [
        "a",
        "passage",
        "the",
        "0",
        "cats",
        "cats sleep",
        "[3] > [1]",
        "which",
        "&amp; caf\u00c3\u00a9",
        "\uff21\uff22",
        "x" * 900,
    ]
    for query in ("which", "cats"):
        writer = CountingWriter()
        result, engine = rerank(request_of(texts, query), writer=writer, template=template)
        assert result.defects == () or not any(NOTHING in defect for defect in result.defects)
        assert writer.n <= 2 * len(engine.asked)


def test_ordinary_windows_are_written_once():
    """The check reuses the rendered prompt."""
    writer = CountingWriter()
    texts = [f"d{i}" for i in range(100)]
    result, engine = rerank(
        request_of(texts), writer=writer, answer=lambda p: Answer(text=" > ".join(f"[{i}]" for i in p.identifiers))
    )
    assert (writer.n, len(engine.asked), result.status) == (9, 9, "ok")
    assert [number(docid) for docid in docids(result)] == list(range(100))


@pytest.mark.parametrize("tail", ["", "| trim", "| upper"])
def test_a_chat_template_that_only_changes_the_text_shows_it(tail):
    """Uppercase text still counts as the passage's."""
    writer = token_writer("{% for m in messages %}{{ m.content " + tail + " }}{% endfor %}")
    result, _ = rerank(request_of(["cats sleep all the day long", "dogs", "b"]), writer=writer)
    assert result.status == "ok"

"""Listwise prompts against those of castorini/rank_llm@1b3cabb: messages, chat texts, ids and the fit to a context."""

from __future__ import annotations

import gzip
import hashlib
import json

import pytest
from shared_files import golden

from rankllm_core.prompts.template import load_template
from rankllm_core.text import defuse_identifiers, first_words, passage_text

LOOKALIKES = {"p-027": ("[ 4 ]", "(4)"), "p-030": ("\u2460", "(1)")}
"""Windows edited by hand whose passages hold what the answer reader takes for an identifier; the original leaves it."""
CHAT_TEMPLATES = ("rank_zephyr", "rank_zephyr_alpha")


@pytest.fixture(scope="module")
def windows():
    """The recorded windows."""
    with gzip.open(golden("prompts.jsonl.gz"), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def encoder(smollm2_tokenizer):
    """SmolLM2's chat layout, with which the prompts were recorded."""
    from rankllm_core.prompts.chat import ChatEncoder

    return ChatEncoder(smollm2_tokenizer)


def candidates_of(window):
    """The recorded candidates that the window holds."""
    return window["candidates"][window["rank_start"] : window["rank_end"]]


def defused(recorded, window):
    """A recorded text as it is without the look-alikes of its window."""
    return recorded.replace(*LOOKALIKES.get(window["id"], ("\0", "")))


def render(window, template, max_words):
    """The messages of a recorded window."""
    is_alpha = template == "rank_zephyr_alpha"
    shown = candidates_of(window)
    return load_template(template).render(
        defuse_identifiers(window["query"]["text"], alpha=is_alpha),
        [defuse_identifiers(first_words(passage_text(c["doc"]), max_words), alpha=is_alpha) for c in shown],
        labels=[chr(65 + i) if is_alpha else str(i + 1) for i in range(len(shown))],
        scores=[c["score"] for c in shown],
    )


@pytest.mark.parametrize("max_words", ["12", "300"])
@pytest.mark.parametrize("template", ["rank_zephyr", "rank_zephyr_alpha", "rank_gpt", "rank_lrl", "rank_gpt_apeer"])
def test_messages_are_byte_for_byte_those_recorded(windows, template, max_words):
    """Thirty windows of real and hand-edited passages, in one turn or many."""
    for window in windows:
        messages = render(window, template, int(max_words))
        written = [{"role": message.role, "content": message.content} for message in messages]
        recorded = window["messages"][template][max_words]
        assert written == [turn | {"content": defused(turn["content"], window)} for turn in recorded], window["id"]


def test_no_window_but_the_two_holds_a_lookalike(windows):
    """The deviation reaches no window of real passages, nor any other that was edited by hand."""
    assert [window["id"] for window in windows if window["id"] in LOOKALIKES] == list(LOOKALIKES)
    for window in windows:
        texts = [turn["content"] for turn in window["messages"]["rank_zephyr"]["300"]]
        assert any(LOOKALIKES.get(window["id"], ("\0",))[0] in text for text in texts) == (window["id"] in LOOKALIKES)


@pytest.mark.parametrize("template", CHAT_TEMPLATES)
def test_chat_prompts_and_their_ids_are_those_recorded(windows, encoder, smollm2_tokenizer, template):
    """Chat template, ftfy over the whole prompt, and the tokenizer."""
    for window in windows:
        prompt = encoder.encode(render(window, template, 300))
        recorded = window["chat"][template]
        expected = defused(recorded["prompt"], window)
        ids = recorded["token_ids"] if expected == recorded["prompt"] else smollm2_tokenizer.encode(expected)
        assert prompt.text == expected, window["id"]
        assert list(prompt.token_ids) == ids, window["id"]


def request_of(window):
    """The window as a request of its own."""
    from rankllm_core.types import Candidate, Query, Request

    shown = candidates_of(window)
    return Request(
        query=Query(qid=window["query"]["qid"], text=window["query"]["text"]),
        candidates=tuple(Candidate(docid=c["docid"], score=c["score"], doc=c["doc"]) for c in shown),
    )


def words_shown(text, template):
    """How many words each passage has in a prompt's text."""
    question = text[text.index("search query: ") :].split("\nSearch Query: ")[0]
    mark = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if template == "rank_zephyr_alpha" else None
    counts = []
    for line in question.split("\n"):
        label = mark[len(counts)] if mark else str(len(counts) + 1)
        if line == f"[{label}]" or line.startswith(f"[{label}] "):
            counts.append(len(line.split()) - 1)
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("context", ["4096", "2048", "1024"])
@pytest.mark.parametrize("template", CHAT_TEMPLATES)
def test_windows_are_fitted_to_the_context_as_recorded(windows, encoder, template, context):
    """The same words a passage, the same prompt, the same room for the answer."""
    from rankllm_core.card import ListwiseCard
    from rankllm_infer.ranking.listwise import ListwiseMethod
    from rankllm_infer.ranking.prompts import TokenPromptWriter
    from rankllm_infer.ranking.settings import RankingSettings

    identifiers = "alpha" if template == "rank_zephyr_alpha" else "numeric"
    card = ListwiseCard(template=load_template(template), identifiers=identifiers, context_tokens=int(context))
    for window in windows:
        if window["id"] in LOOKALIKES:
            continue
        recorded = window["chat"][template]["budget"][context]
        assert not recorded["ended_negative"]
        (prompt,) = next(ListwiseMethod(card, RankingSettings(), TokenPromptWriter(encoder)).flow(request_of(window)))
        assert prompt.max_new_tokens == window["chat"][template]["num_output_tokens"]
        assert len(prompt.token_ids) == recorded["num_tokens"], window["id"]
        assert hashlib.sha256(prompt.text.encode("utf-8")).hexdigest() == recorded["prompt_sha256"], window["id"]
        assert words_shown(prompt.text, template) == recorded["words_per_passage"], window["id"]


def test_the_words_of_every_step_are_those_recorded(windows, smollm2_tokenizer, encoder):
    """The original's rule word by word: fed with the recorded prompt, it ends at the recorded number."""
    from rankllm_infer.ranking.prompts import TokenPromptWriter
    from rankllm_infer.ranking.window_prompts import fit_window

    writer = TokenPromptWriter(encoder)
    for window in windows[7:9]:
        recorded = window["chat"]["rank_zephyr"]
        asked = []

        def write(n_words, n_characters, window=window, asked=asked):
            asked.append(n_words)
            return writer.write(render(window, "rank_zephyr", n_words))

        _, words = fit_window(
            write,
            n_passages=len(candidates_of(window)),
            longest_words=300,
            max_words=300,
            prompt_tokens=1024 - recorded["num_output_tokens"],
            qid="q",
        )
        assert asked == recorded["budget"]["1024"]["max_words_trace"]
        assert words == recorded["budget"]["1024"]["max_words"]

"""A prompt that omits its passage, or shows two passages alike, is reported at the cost of one prompt per query."""

from __future__ import annotations

import copy
import functools

import pytest
from permutation_fakes import letter_tokenizer
from ranking_fakes import docids, number

from rankllm_core.card import PointwiseCard
from rankllm_core.prompts.pairs import PairEncoder, PairLimits
from rankllm_core.prompts.template import load_template
from rankllm_core.types import Candidate, Query, Request
from rankllm_infer.engines.base import Answer, Prompt
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.ranking.pointwise import MessagePairWriter, PointwiseMethod, TokenPairWriter
from rankllm_infer.ranking.settings import RankingSettings
from rankllm_infer.scheduling.pool import FlowPool

NOTHING = "docid {!r}: prompt holds nothing of the passage"
LONG = " ".join(["argumentN is that cats sleep"] * 40)
CATS = {"dogs": "dogs bark", "cats": "cats sleep all day", "planes": "planes fly"}
DROPPING = "{% for m in messages %}<|im_start|>{{ m.role }}<|im_end|>{% endfor %}<|im_start|>assistant\n"
"""A chat template that drops the user's message."""


def request_of(query, texts):
    """Passages by docid: a text, or (title, text)."""
    docs = {docid: {"text": t} if isinstance(t, str) else {"title": t[0], "text": t[1]} for docid, t in texts.items()}
    candidates = [Candidate(docid=docid, score=-float(i), doc=doc) for i, (docid, doc) in enumerate(docs.items())]
    return Request(query=Query(qid="q", text=query), candidates=candidates)


def score(writer, card, request, answer=lambda prompt: Answer(scores=(float(len(prompt.token_ids)),))):
    """Result of an engine that scores a prompt by its length, and the engine."""
    engine = ScriptedEngine(answer)
    (result,) = FlowPool(engine).run([request], PointwiseMethod(card, RankingSettings(), writer).flow)
    return result, engine


@functools.cache
def writer_of(tokenizer, template, *, q=32, p=164):
    """A writer with the model's own tokenizer, and its card."""
    loaded = load_template(template)
    head = "yes-no" if loaded.layout == "yes-no" else "sequence-classification"
    card = PointwiseCard(template=loaded, head=head, query_tokens=q, passage_tokens=p)
    return TokenPairWriter(
        PairEncoder(tokenizer, loaded, limits=PairLimits(query_tokens=q, passage_tokens=p)), card
    ), card


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_query_that_pushes_its_passages_out_is_reported(llama2_tokenizer, n):
    """rankllama-v2 truncates query and passage together: previously this gave n equal scores with status ok."""
    writer, card = writer_of(llama2_tokenizer, "rankllama-v2")
    request = request_of(LONG, dict(list(CATS.items())[:n]))
    result, engine = score(writer, card, request)
    assert (result.status, result.defects) == ("fallback", tuple(NOTHING.format(docid) for docid in list(CATS)[:n]))
    assert docids(result) == list(CATS)[:n]
    assert len(engine.asked) == n


@pytest.mark.parametrize("title", ["", "T"])
def test_the_report_is_exact_to_the_token(title):
    """At each length around the query's: reported exactly if every other passage gives the same ids."""
    tokenizer, template = letter_tokenizer(), load_template("rankllama-v2")
    query = "cats sleep " * 3
    card = PointwiseCard(template=template)
    found = set()
    for room in range(35, 65):
        limits = PairLimits(query_tokens=room - 10, passage_tokens=10)
        encoder = PairEncoder(tokenizer, template, limits=limits)
        result, _ = score(TokenPairWriter(encoder, card), card, request_of(query, {"d": (title, "dogs bark")}))
        words = ("dogs", "planes", "7", "xyz")
        others = {encoder.encode(query, title=title and word, text=f"{word} fly") for word in words}
        assert (result.status == "fallback") == (len(others) == 1), room
        found.add(result.status)
    assert found == {"ok", "fallback"}


@pytest.mark.parametrize("template", ["rankllama", "rankllama-v2", "yes_no"])
@pytest.mark.parametrize("query", ["cats", LONG])
def test_other_layouts_keep_their_passages(llama2_tokenizer, smollm2_tokenizer, template, query):
    """Query and passage are truncated separately; a short query always leaves room."""
    tokenizer = smollm2_tokenizer if template == "yes_no" else llama2_tokenizer
    if (template, query) == ("rankllama-v2", LONG):
        pytest.skip("the case above")
    writer, card = writer_of(tokenizer, template)
    answer = lambda prompt: Answer(scores=(1.0,) * max(1, len(prompt.identifiers)))  # noqa: E731
    result, _ = score(writer, card, request_of(query, CATS), answer)
    assert (result.status, result.defects) == ("ok", ())


def test_a_passage_budget_of_its_prefix_alone_shows_nothing(llama2_tokenizer):
    """`document: ` takes three tokens, and RankLLaMA's first layout gives a passage three less than requested."""
    for p, status in ((4, "fallback"), (5, "fallback"), (6, "fallback"), (7, "ok")):
        writer, card = writer_of(llama2_tokenizer, "rankllama", p=p)
        assert score(writer, card, request_of("cats", CATS))[0].status == status, p


@pytest.mark.parametrize("n", [1, 3])
def test_a_chat_template_that_drops_the_users_text_is_reported(smollm2_tokenizer, n):
    """Every passage is scored on the same ids."""
    tokenizer = copy.deepcopy(smollm2_tokenizer)
    tokenizer.chat_template = DROPPING
    writer, card = writer_of(tokenizer, "yes_no")
    request = request_of("cats", dict(list(CATS.items())[:n]))
    result, _ = score(writer, card, request, lambda prompt: Answer(scores=(1.0, 2.0)))
    assert (result.status, len(result.defects)) == ("fallback", n)
    assert docids(result) == list(CATS)[:n]


class DroppingWriter:
    """Omits passages that bark."""

    def write(self, query, *, title, text, instruction=None):
        """The pair in words."""
        return Prompt(text=f"{query}|{'' if 'bark' in text else text}", read="head")


def test_what_drops_some_texts_is_reported_for_those():
    """The others were scored on their texts: a repair, not a fallback."""
    card = PointwiseCard(template=load_template("rankllama"))
    result, _ = score(DroppingWriter(), card, request_of("q", CATS), lambda prompt: Answer(scores=(1.0,)))
    assert (result.status, result.defects) == ("repaired", (NOTHING.format("dogs"),))


def test_passages_that_differ_behind_the_cut_are_reported_and_copies_are_not(llama2_tokenizer):
    """Collections contain duplicates; but two different passages scored on the same ids should be reported."""
    writer, card = writer_of(llama2_tokenizer, "rankllama", p=20)
    same = "word " * 40
    texts = {"a": same + "cats", "b": same + "dogs", "c": "planes fly", "d": same + " cats ", "e": "planes  fly\n"}
    result, _ = score(writer, card, request_of("cats", texts))
    assert result.status == "repaired"
    assert result.defects == ("docid 'b': shown exactly as docid 'a', whose passage differs",)


def test_blank_passages_show_nothing_because_there_is_nothing(llama2_tokenizer):
    """They are all alike, which is not the prompt's fault."""
    writer, card = writer_of(llama2_tokenizer, "rankllama")
    result, _ = score(writer, card, request_of("cats", {"a": "", "b": " \n", "c": ("", ""), "d": "cats"}))
    assert (result.status, result.defects) == ("ok", ())


@pytest.mark.parametrize("text", ["0", "a", "0 cats", "a cat", "zero", "00"])
@pytest.mark.parametrize("title", ["", "0", "a"])
def test_a_passage_that_is_the_probe_is_no_fault(llama2_tokenizer, text, title):
    """Whatever probe text the check uses."""
    writer, card = writer_of(llama2_tokenizer, "rankllama")
    result, _ = score(writer, card, request_of("cats", {"d": (title, text)}))
    assert result.status == "ok"


def test_messages_for_a_server_are_checked_too():
    """Truncated to two words, two passages are alike."""
    card = PointwiseCard(template=load_template("yes_no"), head="yes-no", passage_tokens=4, query_tokens=4)
    texts = {"d1": "cats sleep all day", "d2": "cats sleep all night", "d3": "cats sleep now", "d4": "dogs"}
    result, _ = score(MessagePairWriter(card), card, request_of("q", texts), lambda p: Answer(scores=(1.0, 0.0)))
    assert result.defects == ("docid 'd2': shown exactly as docid 'd1', whose passage differs",)


class CountingWriter:
    """Writes a pair in words and counts calls."""

    def __init__(self):
        self.n = 0

    def write(self, query, *, title, text, instruction=None):
        """The pair."""
        self.n += 1
        return Prompt(text=f"{query}|{title}|{text}", read="head")


def test_the_check_writes_one_prompt_a_query():
    """With or without titles."""
    card = PointwiseCard(template=load_template("rankllama"))
    for texts, more in (
        ({f"d{i}": f"d{i}" for i in range(100)}, 1),
        ({f"d{i}": ("T" if i % 2 else "", f"d{i}") for i in range(100)}, 1),
    ):
        writer = CountingWriter()
        score(writer, card, request_of("q", texts), lambda p: Answer(scores=(float(number(p.text.split("|")[2])),)))
        assert writer.n == 100 + more


@pytest.mark.parametrize("name", ["q_max_len", "p_max_len"])
def test_half_a_limit_of_a_layout_that_has_one_is_refused(name):
    """`rankllama-v2` truncates at the sum; one of the two alone would not have its stated meaning."""
    from rankllm_core.errors import ConfigError
    from rankllm_infer.effective_card import resolve_card
    from rankllm_infer.options import RerankOptions

    both = RerankOptions(method="pointwise", template="rankllama-v2", q_max_len=16, p_max_len=100)
    card = resolve_card("m", both, folder=None, score_head=True).card
    assert (card.query_tokens, card.passage_tokens) == (16, 100)
    alone = RerankOptions(method="pointwise", template="rankllama-v2", **{name: 50})
    option = "--" + name.replace("_", "-")
    with pytest.raises(ConfigError, match=rf"{option} has no effect alone: template rankllama-v2 truncates"):
        resolve_card("m", alone, folder=None, score_head=True)
    apart = RerankOptions(method="pointwise", template="rankllama", **{name: 50})
    resolve_card("m", apart, folder=None, score_head=True)


def test_a_run_says_how_many_passages_were_not_shown(tmp_path, rankllm, tiny_classifier):
    """In its summary and in the results."""
    import json

    requests = tmp_path / "requests.jsonl"
    candidates = [{"docid": d, "score": 1.0, "doc": {"text": text}} for d, text in CATS.items()]
    lines = [{"query": {"qid": q, "text": t}, "candidates": candidates} for q, t in (("q1", "cats"), ("q2", LONG))]
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    options = ["--prompt-template-path", "rankllama-v2", "--q-max-len", "32", "--p-max-len", "164"]
    output = tmp_path / "out.jsonl"
    files = ["--requests", requests, "--output-jsonl", output]
    done = rankllm("rerank", "--model-path", tiny_classifier, *files, *options)
    assert done.code == 0, done.err
    assert "Warning: 3 passages absent from the prompt, in 1 query ('q2')" in done.err
    first, second = map(json.loads, output.read_text(encoding="utf-8").splitlines())
    assert (first["status"], second["status"]) == ("ok", "fallback")
    assert len(second["defects"]) == 3
    assert [c["docid"] for c in second["candidates"]] == list(CATS)

"""The Python interface: loading a reranker, reranking requests, memory use, failures, and when inputs are checked."""

from __future__ import annotations

import gc
import json
import math
import weakref
from dataclasses import replace

import pytest
from chat_server import serving
from ranking_fakes import answer_by, docids, make_method, make_request, number
from ranking_server import respond

import rankllm_infer.api as api
from rankllm_core.card import PointwiseCard
from rankllm_core.errors import ConfigError, ContractError, RankLLMError
from rankllm_core.prompts.template import Message, Span, load_template
from rankllm_core.types import Usage
from rankllm_infer.api import Reranker, load_reranker
from rankllm_infer.engines.base import Answer, EngineError, Prompt
from rankllm_infer.engines.openai.http import NoServerError
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.options import RerankOptions
from rankllm_infer.ranking.pointwise import PointwiseMethod
from rankllm_infer.ranking.settings import RankingSettings


class PlainPairWriter:
    """Writes a pair as query and text."""

    def write(self, query, *, title, text, instruction=None):
        """One prompt for the score head."""
        return Prompt(text=f"{query} | {text}", read="head")


def listwise(answer, *, batch_size=8, **plan):
    """Listwise reranker with a scripted engine, available as its `engine`."""
    return Reranker(make_method(**plan), ScriptedEngine(answer, batch_size=batch_size))


def pointwise(answer, **plan):
    """Pointwise reranker with a scripted engine."""
    card = PointwiseCard(template=load_template("rankllama"))
    return Reranker(PointwiseMethod(card, RankingSettings(**plan), PlainPairWriter()), ScriptedEngine(answer))


# The best passage is the one with the smallest number: the reverse of what `best_last` asks for.
best_first = answer_by(number)
best_last = answer_by(lambda text: -number(text))


def test_results_come_in_the_order_of_the_requests():
    """Regardless of which finishes first: short and long lists mixed, in batches of two prompts."""
    reranker = listwise(best_last, batch_size=2)
    requests = [make_request(f"q{n}", size) for n, size in enumerate((45, 1, 3, 30, 0, 2))]
    results = reranker.rerank(requests)
    assert [r.query.qid for r in results] == [f"q{n}" for n in range(6)]
    assert [docids(r) for r in results[1:]] == [
        ["d0"],
        ["d2", "d1", "d0"],
        # The first window puts ranks 11-30 in the order d29 ... d10, the second one d0-d9 and d29-d20.
        [f"d{n}" for n in (*range(29, 19, -1), *range(9, -1, -1), *range(19, 9, -1))],
        [],
        ["d1", "d0"],
    ]
    assert [r.status for r in results] == ["ok"] * 6
    assert len(results[0].candidates) == len({c.docid for c in results[0].candidates}) == 45


def test_a_pointwise_reranker_sorts_by_score():
    """Scores come from the head; ties keep the first-stage order and are separated by the smallest step."""
    reranker = pointwise(lambda prompt: Answer(scores=(float(number(prompt.text.split()[-1]) // 2),)))
    (result,) = reranker.rerank([make_request("q", 5)])
    assert docids(result) == ["d4", "d2", "d3", "d0", "d1"]
    assert [c.model_score for c in result.candidates] == [2.0, 1.0, 1.0, 0.0, 0.0]
    scores = [c.score for c in result.candidates]
    assert scores == sorted(set(scores), reverse=True)
    assert scores == pytest.approx([2.0, 1.0, 1.0, 0.0, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Answer(scores=(math.nan,)), "docid 'd1' is nan, expected a finite float32 number"),
        (Answer(scores=(math.inf,)), "docid 'd1' is inf, expected a finite float32 number"),
        (Answer(scores=(1e39,)), "docid 'd1' is 1e+39, expected a finite float32 number"),
        (EngineError("out of order"), "out of order"),
    ],
)
def test_a_query_that_cannot_be_scored_fails_alone(bad, reason):
    """NaN is never sorted: the error names query and docid, candidates keep their order, and other queries continue."""
    reranker = pointwise(
        lambda prompt: bad if prompt.text == "query q2 | d1" else Answer(scores=(1.0,), usage=Usage(calls=1))
    )
    results = reranker.rerank([make_request(qid, 3) for qid in ("q1", "q2", "q3")])
    assert [r.status for r in results] == ["ok", "failed", "ok"]
    assert results[1].error.startswith("query 'q2': ")
    assert results[1].error.endswith(reason)
    assert docids(results[1]) == ["d0", "d1", "d2"]
    assert (results[0].error, results[2].error) == (None, None)


def test_a_stream_keeps_few_requests_in_memory():
    """Of 2,000 requests, only a few are started and not yet yielded; yielded ones are released."""

    class Doc(dict):
        """A passage that supports weak references."""

        __hash__ = object.__hash__

    alive = weakref.WeakSet()
    begun = 0

    def watched(place):
        doc = Doc(text=f"d{place}")
        alive.add(doc)
        return doc

    def requests():
        nonlocal begun
        for n in range(2000):
            begun += 1
            yield make_request(f"q{n}", 2, doc=watched)

    reranker = listwise(best_last, batch_size=5)
    most_begun = most_alive = 0
    for handed_on, result in enumerate(reranker.stream(requests())):
        assert result.query.qid == f"q{handed_on}"
        most_begun = max(most_begun, begun - handed_on)
        if handed_on % 100 == 0:
            gc.collect()
            most_alive = max(most_alive, len(alive))
    assert begun == 2000
    assert most_begun <= 64 + 5  # those of one batch more
    assert most_alive <= 2 * 70
    assert len(reranker.engine.asked) == 2000


def test_a_slow_first_query_holds_up_nobodys_progress():
    """Results wait for their turn; `on_finished` does not."""
    events = []
    reranker = listwise(best_last, batch_size=1)
    requests = [make_request("long", 60), make_request("short", 2), make_request("empty", 0)]
    for result in reranker.stream(requests, on_finished=lambda result: events.append(f"{result.query.qid} done")):
        events.append(f"{result.query.qid} out")
    assert events == ["empty done", "short done", "long done", "long out", "short out", "empty out"]


def test_a_failed_query_is_finished_too():
    """Progress includes it."""
    finished = []
    reranker = listwise(lambda prompt: EngineError("no"))
    list(reranker.stream([make_request("q", 3)], on_finished=finished.append))
    assert [r.status for r in finished] == ["failed"]


def test_a_reranker_closes_its_engine():
    """As a context manager, also after an error."""

    class Closing(ScriptedEngine):
        closed = 0

        def close(self):
            self.closed += 1

    engine = Closing(best_last)
    with pytest.raises(KeyboardInterrupt), Reranker(make_method(), engine):
        raise KeyboardInterrupt
    assert engine.closed == 1


def test_a_request_is_made_of_texts_or_mappings():
    """Docids default to numbers from 1; scores decrease from the number of passages to 1."""
    request = api.make_request("q", ["a", {"text": "b", "docid": 7}, {"title": "T", "text": "c"}], qid="x")
    assert (request.query.qid, request.query.text) == ("x", "q")
    assert [(c.docid, c.score, c.doc) for c in request.candidates] == [
        ("1", 3.0, {"text": "a"}),
        ("7", 2.0, {"text": "b"}),
        ("3", 1.0, {"title": "T", "text": "c"}),
    ]


def test_a_passage_that_is_handed_in_is_not_changed():
    """Mappings belong to the caller."""
    passage = {"text": "b", "docid": "x"}
    api.make_request("q", [passage])
    assert passage == {"text": "b", "docid": "x"}


def few_shot(path, *examples):
    """A few-shot file."""
    path.write_text(json.dumps(examples), encoding="utf-8")
    return str(path)


EXAMPLE = {"conversations": [{"role": "user", "value": "Rank."}, {"role": "assistant", "value": "[2] > [1]"}]}


def options(server, **values):
    """Options for a chat server."""
    return RerankOptions(engine="openai", base_url=server.base_url, **values)


def test_examples_of_a_file_come_before_the_question(tmp_path):
    """The first examples in the file, as chat turns."""
    file = few_shot(tmp_path / "f.json", EXAMPLE, EXAMPLE | {"id": 3}, {"conversations": [{"role": "?", "value": ""}]})
    with (
        serving(respond) as server,
        load_reranker("oracle", options(server, few_shot_file=file, num_few_shot_examples=2)) as reranker,
    ):
        assert (
            reranker.method.settings.few_shot
            == (
                Message("user", (Span("Rank."),)),
                Message("assistant", (Span("[2] > [1]"),)),
            )
            * 2
        )
        reranker.rerank([make_request("q", 2)])
    roles = [message["role"] for message in server.requests[-1].body["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"f.json: expected a JSON array of .* \(JSONDecodeError"),
        ('{"conversations": []}', r"f.json: expected a JSON array of "),
        ('[{"messages": []}]', r"f.json: expected a JSON array of .* \(KeyError: 'conversations'\)"),
        ('[{"conversations": [{"from": "user", "value": "x"}]}]', r"f.json: expected a JSON .* \(KeyError: 'role'\)"),
        ("[]", r"f.json: found 0 examples, expected 1"),
    ],
)
def test_a_bad_example_file_is_one_line(tmp_path, text, message):
    """What was expected and found, before the model is located."""
    (tmp_path / "f.json").write_text(text, encoding="utf-8")
    wanted = RerankOptions(few_shot_file=str(tmp_path / "f.json"), num_few_shot_examples=1)
    (tmp_path / "model").mkdir()
    with pytest.raises(RankLLMError, match=message):
        load_reranker(tmp_path / "model", wanted)


def test_a_served_reranker_knows_its_card_and_its_doubts(tmp_path):
    """The name of a published model suffices; the description states what runs where."""
    with serving(respond) as server, load_reranker("castorini/first_mistral", options(server)) as reranker:
        assert (reranker.card.identifiers, reranker.card.answer) == ("alpha", "first-token")
        assert reranker.warnings == (
            f"{server.base_url}: does not offer model 'castorini/first_mistral'; available: oracle",
        )
        assert reranker.description == (
            f"listwise, castorini/first_mistral at {server.base_url} (the bundled card of castorini/first_mistral)"
        )


def test_a_server_that_is_not_there_is_found_at_loading():
    """Not by the first prompt after its retries."""
    with serving(respond) as server:
        pass
    with pytest.raises(NoServerError, match=r"no server at .*: connection refused"):
        load_reranker("oracle", options(server))


def test_a_server_has_no_score_head():
    """RankLLaMA's template needs one."""
    with (
        serving(respond) as server,
        pytest.raises(ConfigError, match="a chat server has no score head; use a yes/no template"),
    ):
        load_reranker("castorini/rankllama-v1-7b-lora-passage", options(server))


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("numeric", 9, None),
        ("numeric", 10, r"FIRST reads one token .*'10'.*; use --use-alpha, or --window-size 9 or less"),
        ("alpha", 26, None),
    ],
)
def test_identifiers_of_first_are_single_tokens(smollm2_tokenizer, kind, size, message):
    """SmolLM2 tokenizes digits individually, so numbers end at 9; letters are single tokens."""
    from rankllm_core.prompts.tokens import SafeTokenizer
    from rankllm_infer.ranking.prompts import check_identifiers

    safe = SafeTokenizer(smollm2_tokenizer)
    card = make_method(size=size, stride=1, card={"identifiers": kind, "answer": "first-token"}).card
    if message is None:
        check_identifiers(safe, card)
        return
    with pytest.raises(ContractError, match=message):
        check_identifiers(safe, card)


def test_a_loaded_reranker_reranks_and_reads_no_further_than_it_must(tiny_causal):
    """A real model: every candidate once, order from FIRST's scores, four windows for 50 candidates."""
    wanted = RerankOptions(use_alpha=True, use_logits=True, dtype="float32", max_passage_words=8)
    with load_reranker(tiny_causal, wanted) as reranker:
        (result,) = reranker.rerank([make_request("q", 50)])
    assert sorted(docids(result)) == sorted(f"d{n}" for n in range(50))
    assert [c.score for c in result.candidates] == [float(n) for n in range(50, 0, -1)]
    assert result.usage.calls == 4
    assert result.status == "ok"
    top = [c.model_score for c in result.candidates[:10]]
    assert top == sorted(top, reverse=True)


def test_a_generated_answer_is_always_a_ranking_unless_decoding_is_free(tiny_causal):
    """A random model does not write rankings; constrained decoding forces it to, in every format that templates
    request."""
    for template in ("rank_zephyr", "rank_zephyr_alpha", "rank_lrl", "rank_gpt_apeer"):
        wanted = RerankOptions(template=template, dtype="float32", context_size=1000, window_size=4, stride=2)
        for options, status in ((wanted, "ok"), (replace(wanted, free_decoding=True), "fallback")):
            with load_reranker(tiny_causal, options) as reranker:
                (result,) = reranker.rerank([make_request("q", 4)])
            assert sorted(docids(result)) == ["d0", "d1", "d2", "d3"]
            assert (result.status, bool(result.defects)) == (status, status != "ok")


def test_the_top_of_a_window_is_decoded_and_the_rest_keeps_its_order(tiny_causal):
    """Top 2 of 6: the same first two as in the full answer, then the others in their original order."""
    wanted = RerankOptions(use_alpha=True, dtype="float32")
    found = []
    for options in (wanted, replace(wanted, decode_top_k=2)):
        with load_reranker(tiny_causal, options) as reranker:
            found.append(docids(reranker.rerank([make_request("q", 6)])[0]))
    everything, top = found
    assert top == [*everything[:2], *sorted(everything[2:])]


def test_the_same_list_is_reranked_the_same_whatever_runs_beside_it(tiny_causal):
    """In float32, alone or batched with prompts of other lengths."""
    wanted = RerankOptions(use_alpha=True, use_logits=True, dtype="float32")
    with load_reranker(tiny_causal, wanted) as reranker:
        (alone,) = reranker.rerank([make_request("q", 12)])
        among = reranker.rerank([make_request("a", 3), make_request("q", 12), make_request("b", 25)])[1]
    assert docids(alone) == docids(among)


def test_shuffling_depends_on_the_seed_and_the_query_alone():
    """The same seed gives the same list; the first prompt differs from the first-stage order."""
    seen = []

    def answer(prompt):
        seen.append(prompt.text)
        return best_first(prompt)

    for seed in (1, 1, 2):
        listwise(answer, shuffle_seed=seed).rerank([make_request("q", 10)])
    assert seen[0] == seen[1] != seen[2]

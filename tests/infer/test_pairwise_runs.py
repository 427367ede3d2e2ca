"""Pairwise reranking end to end: compared with plain transformers, with a server, interrupted and resumed,
previewed."""

from __future__ import annotations

import json
import math
import re
from itertools import permutations

import pytest
from chat_server import logprobs_reply, serving
from ranking_fakes import docids, make_request
from scripted_runs import Killed, killed_after

from rankllm_core.card import PairwiseCard, save_card
from rankllm_core.prompts.template import load_template
from rankllm_core.types import Usage
from rankllm_infer import RerankOptions, load_reranker
from rankllm_infer import make_request as request_of
from rankllm_infer.api import Reranker
from rankllm_infer.engines.base import Answer
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.jobs.journal import Journal
from rankllm_infer.ranking.pairwise import PairwiseMethod
from rankllm_infer.ranking.settings import RankingSettings

QUERY, PASSAGES = "what is a cat", ("a small animal", "a language of proofs", "the king of France", "a pet")
QUESTION = (
    'Given a query "{}", which of the following two passages is more relevant to the query?\n\n'
    "Passage A: {}\n\nPassage B: {}\n\nAnswer with the letter A or B alone."
)
PRP = (
    'Given a query "{}", which of the following two passages is more relevant to the query?\n\n'
    'Passage A: "{}"\n\nPassage B: "{}"\n\nOutput Passage A or Passage B:'
)


# Against plain transformers.


@pytest.mark.parametrize(
    ("options", "question", "opening", "words"),
    [({"method": "pairwise"}, QUESTION, "", ("A", "B")), ({"template": "prp"}, PRP, "Passage", ("ĠA", "ĠB"))],
)
def test_any_chat_model_compares_as_plain_transformers_does(
    smollm2_tokenizer, tmp_path, options, question, opening, words
):
    """SYM-SUM of a small Llama's probabilities with its chat template, in float32 to 1e-5; ids are the tokenizer's."""
    torch = pytest.importorskip("torch")
    from tiny_models import save_causal

    model = save_causal(tmp_path / "m", smollm2_tokenizer, max_position_embeddings=1024)
    expected, prompts = [0.0] * len(PASSAGES), []
    for one, other in permutations(range(len(PASSAGES)), 2):
        asked = [{"role": "user", "content": question.format(QUERY, PASSAGES[one], PASSAGES[other])}]
        text = smollm2_tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) + opening
        prompts.append(text)
        with torch.inference_mode():
            logits_V = model(torch.tensor([smollm2_tokenizer.encode(text)])).logits[0, -1]
        first, second = (logits_V[smollm2_tokenizer.convert_tokens_to_ids(word)] for word in words)
        p = (first - second).sigmoid().item()
        expected[one] += p
        expected[other] += 1 - p
    with load_reranker(
        tmp_path / "m", RerankOptions(device="cpu", dtype="float32", with_trace=True, **options)
    ) as reranker:
        (result,) = reranker.rerank([request_of(QUERY, PASSAGES)])
    assert result.error is None
    assert sorted(call.prompt for call in result.trace) == sorted(prompts)
    said = {int(candidate.docid) - 1: candidate.model_score for candidate in result.candidates}
    assert [said[place] for place in range(len(PASSAGES))] == pytest.approx(expected, abs=1e-5)
    assert list(said) == sorted(range(len(PASSAGES)), key=lambda place: -expected[place])


# Over a server.


def prefers_larger(received):
    """A server whose model prefers the passage with the larger number, by log-probabilities of A and B."""
    (turn,) = received.body["messages"]
    first, second = (int(re.search(rf"Passage {letter}: passage (\d+)", turn["content"])[1]) for letter in "AB")
    better, worse = ("A", "B") if first > second else ("B", "A")
    return logprobs_reply({better: math.log(0.75), worse: math.log(0.25), "The": -9.0})


@pytest.fixture
def requests(tmp_path):
    """Two queries with the best passages at the bottom."""
    lines = [
        {
            "query": {"qid": qid, "text": f"about {qid}"},
            "candidates": [{"docid": f"d{i}", "score": -i, "doc": {"text": f"passage {i}"}} for i in range(n)],
        }
        for qid, n in (("q1", 4), ("q2", 6))
    ]
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("options", "calls", "top"),
    [
        ([], 4 * 3 + 6 * 5, {"q1": ["d3", "d2", "d1", "d0"], "q2": ["d5", "d4", "d3", "d2", "d1", "d0"]}),
        # One pass from the bottom up: each pair of neighbours, in both orders.
        (["--strategy", "bubble", "--rank-top-k", "1"], 2 * 3 + 2 * 5, {"q1": ["d3", "d0"], "q2": ["d5", "d0"]}),
    ],
)
def test_a_server_compares_by_its_first_tokens_log_probabilities(rankllm, requests, tmp_path, options, calls, top):
    """No template, card or tokenizer is needed; calls are counted in summary and trace."""
    run, trace = tmp_path / "run.trec", tmp_path / "trace.jsonl"
    with serving(prefers_larger) as server:
        done = rankllm(
            *(
                "rerank",
                "--engine",
                "openai",
                "--base-url",
                server.base_url,
                "--model-path",
                "m",
                "--method",
                "pairwise",
            ),
            *("--requests", requests, "--output", run, "--trace", trace, *options),
        )
    assert done.code == 0, done.err
    ranked = {}
    for line in run.read_text().splitlines():
        qid, _, docid, *_ = line.split()
        ranked.setdefault(qid, []).append(docid)
    assert {qid: docids[: len(top[qid])] for qid, docids in ranked.items()} == top
    bodies = [received.body for received in server.requests if received.body]
    assert len(bodies) == calls
    assert all(body["max_tokens"] == 1 and body["logprobs"] and body["top_logprobs"] >= 2 for body in bodies)
    assert f"{calls} model calls" in done.err
    records = [json.loads(line) for line in trace.read_text().splitlines()]
    assert sum(len(record["invocations_history"]) for record in records) == calls


def test_a_server_without_log_probabilities_is_one_line(rankllm, requests, tmp_path):
    """What cannot be read, and what to do."""
    from chat_server import chat_reply

    with serving(lambda _: chat_reply("A")) as server:
        done = rankllm(
            *(
                "rerank",
                "--engine",
                "openai",
                "--base-url",
                server.base_url,
                "--model-path",
                "m",
                "--method",
                "pairwise",
            ),
            *("--requests", requests, "--output", tmp_path / "run.trec"),
        )
    assert done.code == 3
    assert "returned no log-probabilities; pairwise comparison is not possible with this server" in done.err


# Interrupted and resumed.


def noisy(prompt):
    """A preference determined by the prompt alone."""
    return Answer(scores=((hash_of(prompt.text) % 100) / 10, 5.0), usage=Usage(calls=1))


def hash_of(text):
    """A hash of a text that is the same in every process."""
    return sum(place * ord(letter) for place, letter in enumerate(text, start=1))


@pytest.mark.parametrize("strategy", ["all-pairs", "heapsort", "bubble"])
@pytest.mark.parametrize("n_before", [1, 25, 60])
def test_an_interrupted_run_resumes_where_it_stopped(tmp_path, strategy, n_before):
    """From its journal: the same results, and no answered prompt is run again."""
    asked = [make_request(f"q{i}", n) for i, n in enumerate((7, 9, 2))]
    top_k = None if strategy == "all-pairs" else 3
    card = PairwiseCard(template=load_template("pairwise"))
    method = PairwiseMethod.with_tokenizer(card, RankingSettings(strategy=strategy, rank_top_k=top_k), None)

    def run(answer, log=None):
        engine = ScriptedEngine(answer, batch_size=3)
        return list(Reranker(method, engine).stream(asked, log=log)), engine

    whole, engine = run(noisy)
    with Journal(tmp_path / "journal") as journal:
        journal.begin({"a": 1})
        with pytest.raises(Killed):
            run(killed_after(min(n_before, len(engine.asked) - 1), noisy), log=journal)
    with Journal(tmp_path / "journal") as journal:
        journal.begin({"a": 1})
        resumed, again = run(noisy, log=journal)
    assert resumed == whole
    assert len(engine.asked) - min(n_before, len(engine.asked) - 1) <= len(again.asked) <= len(engine.asked)
    assert len(again.asked) < len(engine.asked) or n_before == 1
    assert [docids(result) for result in resumed] == [docids(result) for result in whole]


# What a user sees.


@pytest.mark.parametrize("template", ["pairwise", "duot5"])
def test_a_comparison_is_previewed(rankllm, requests, template):
    """The first two candidates, without a model; the letters to be read."""
    done = rankllm(
        *("prompts", "render", "--requests", requests, "--prompt-template-path", template, "--json"),
    )
    assert done.code == 0, done.err
    shown = json.loads(done.out)
    assert (shown["kind"], shown["docids"], shown["first_rank"], shown["read"]) == (
        "pairwise",
        ["d0", "d1"],
        1,
        "first-token",
    )
    assert "passage 0" in json.dumps(shown)
    assert "passage 1" in json.dumps(shown)


def test_a_comparison_is_previewed_with_its_models_card(rankllm, requests, tmp_path, smollm2_tokenizer):
    """From tokenizer, configuration and card alone."""
    smollm2_tokenizer.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    save_card(PairwiseCard(template=load_template("pairwise")), tmp_path / "m")
    done = rankllm("prompts", "render", "--requests", requests, "--model-path", tmp_path / "m")
    assert done.code == 0, done.err
    assert "Passage A: passage 0\n\nPassage B: passage 1" in done.out
    assert "pairwise, template pairwise, output: the logits of the next token" in done.out + done.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "pairwise", "--window-size", "5"], "--window-size has no effect on a pairwise reranker"),
        (["--method", "pairwise", "--strategy", "full"], "--strategy full: is a listwise strategy"),
        (
            ["--method", "pairwise", "--rank-top-k", "5"],
            "--rank-top-k has no effect with --strategy sliding and all-pairs",
        ),
        (["--strategy", "heapsort"], "--strategy heapsort: is a pairwise strategy"),
        (["--method", "pointwise", "--strategy", "heapsort"], "--strategy has no effect on a pointwise reranker"),
        (
            ["--method", "listwise", "--prompt-template-path", "prp"],
            "is a pairwise template, but the method is listwise",
        ),
        (
            ["--method", "pairwise", "--prompt-template-path", "yes_no"],
            "is a pointwise template, but the method is pair",
        ),
        (["--method", "pairwise", "--prompt-template-path", "duot5"], "template duot5: has no chat turns"),
        (["--method", "pairwise", "--instruction", "x"], "--instruction has no effect on a pairwise reranker"),
    ],
)
def test_every_misuse_is_one_line_before_the_server_is_asked(rankllm, requests, tmp_path, options, said):
    """No server listens at that address."""
    done = rankllm(
        *("rerank", "--engine", "openai", "--base-url", "http://127.0.0.1:9/v1", "--model-path", "m"),
        *("--requests", requests, "--output", tmp_path / "run.trec", *options),
    )
    assert done.code in (1, 2)
    (line,) = (line for line in done.err.splitlines() if line.startswith("Error: "))
    assert said in line

"""Scores of a RankLLaMA-style model against those recorded from texttron/tevatron@dd06310, in float32."""

from __future__ import annotations

import gzip
import json

import pytest
from shared_files import golden

pytest.importorskip("torch")

import torch

from rankllm_core.prompts.pairs import PairEncoder, PairLimits
from rankllm_core.prompts.template import load_template
from rankllm_infer.engines.base import Prompt
from rankllm_infer.engines.transformers.engine import BatchLimits, TransformersEngine
from rankllm_infer.engines.transformers.model import LoadedModel

TOLERANCE = 1e-4
"""Of a score; the recorded ones differ by 2e-6 between padded and single passes."""


@pytest.fixture(scope="module")
def recorded():
    """The head's weights and the groups of a query with eight passages."""
    with gzip.open(golden("rankllama_scores.jsonl.gz"), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    (head,) = [row for row in rows if row["kind"] == "head"]
    return head, [row for row in rows if row["kind"] == "group"]


@pytest.fixture(scope="module")
def classifier(recorded, smollm2_path, smollm2_tokenizer):
    """SmolLM2 under the recorded head."""
    from transformers import LlamaForSequenceClassification

    from rankllm_core.nn.model_parts import quiet_transformers

    with quiet_transformers(hide_warnings=True):
        model = LlamaForSequenceClassification.from_pretrained(smollm2_path, num_labels=1, dtype=torch.float32)
    with torch.no_grad():
        model.score.weight.copy_(torch.tensor([recorded[0]["weight"]]))
    return LoadedModel(model=model.eval(), tokenizer=smollm2_tokenizer, dtype=torch.float32, device=torch.device("cpu"))


def score(classifier, many_ids, **limits):
    """One score each, in order."""
    engine = TransformersEngine(classifier, limits=BatchLimits(**limits))
    for ticket, ids in enumerate(many_ids):
        engine.submit(ticket, Prompt(text="", read="head", token_ids=tuple(ids)))
    found = {}
    while batch := engine.collect():
        found |= {ticket: answer.scores[0] for ticket, answer in batch}
    return [found[ticket] for ticket in range(len(many_ids))]


@pytest.mark.slow
def test_published_layout_scores_and_orders_are_those_recorded(recorded, classifier):
    """All eight groups, each pair scored on its own there and in batches of its length here."""
    groups = recorded[1]
    scores = score(classifier, [ids for group in groups for ids in group["v1"]["input_ids"]])
    for place, group in enumerate(groups):
        found = scores[8 * place : 8 * place + 8]
        assert found == pytest.approx(group["v1"]["scores_single_unpadded"], abs=TOLERANCE), group["id"]
        assert sorted(range(8), key=lambda i: -found[i]) == group["v1"]["order"], group["id"]


def test_later_layout_scores_are_those_recorded(recorded, classifier):
    """One string a pair; the recorded ones were padded to a common length."""
    for group in recorded[1][:2]:
        found = score(classifier, group["v2"]["input_ids"])
        assert found == pytest.approx(group["v2"]["tevatron_scores_padded"], abs=TOLERANCE), group["id"]


def test_an_eos_that_ends_the_pair_is_where_the_score_is_read(recorded, classifier):
    """By the attention mask, as recorded; the original reads one position early where EOS is the padding token."""
    groups = [group for group in recorded[1] if group["v2_append_eos"]]
    assert groups
    for group in groups[:2]:
        found = score(classifier, group["v2_append_eos"]["input_ids"])
        assert found == pytest.approx(group["v2_append_eos"]["scores_at_eos_by_mask"], abs=TOLERANCE), group["id"]


@pytest.mark.slow
def test_a_score_does_not_depend_on_its_batch(recorded, classifier):
    """Batches of 1, 3 and 8, in either order: the same to the fifth decimal."""
    pairs = [ids for group in recorded[1][:4] for ids in group["v1"]["input_ids"][:2]]
    alone = score(classifier, pairs, max_prompts=1)
    for max_prompts in (3, 8):
        assert score(classifier, pairs, max_prompts=max_prompts, max_tokens=10_000) == pytest.approx(alone, abs=1e-5)
    assert score(classifier, pairs[::-1], max_prompts=5)[::-1] == pytest.approx(alone, abs=1e-5)


def test_pairs_are_encoded_as_recorded(recorded, smollm2_tokenizer):
    """From query, title and text to the ids that were scored, in both layouts."""
    limits = PairLimits(query_tokens=32, passage_tokens=164)
    published = PairEncoder(smollm2_tokenizer, load_template("rankllama"), limits=limits)
    later = PairEncoder(smollm2_tokenizer, load_template("rankllama-v2"), limits=limits)
    ended = PairEncoder(smollm2_tokenizer, load_template("rankllama-v2"), limits=limits, append_eos=True)
    for group in recorded[1]:
        for layout, encoder in (("v1", published), ("v2", later), ("v2_append_eos", ended)):
            if group[layout] is None:
                continue
            found = [
                list(encoder.encode(group["query"]["text"], title=doc["title"], text=doc["text"]))
                for doc in group["docs"]
            ]
            assert found == group[layout]["input_ids"], (group["id"], layout)

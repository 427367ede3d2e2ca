"""The ids of RankLLaMA pairs against those recorded from texttron/tevatron@0545746 (v1) and @dd06310 (v2)."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace

import pytest
from shared_files import golden

from rankllm_core.prompts.pairs import PairEncoder, PairLimits
from rankllm_core.prompts.template import load_template

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def pairs():
    """The recorded pairs. `title: null` says that the record had no title key."""
    with gzip.open(golden("rankllama_ids.jsonl.gz"), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["kind"] == "pair"]


def is_comparable(row):
    """Whether the reference's ids do not depend on its libraries' versions: that text holds `<s>`, which stays text."""
    return not row["tokenizer_version_sensitive"]


def encode(encoder, row):
    """The pair's ids, as a list."""
    return list(encoder.encode(row["query"], title=row["title"] or "", text=row["text"]))


@pytest.mark.parametrize("limits", ["32,164", "32,196", "16,64"])
def test_the_published_layout_has_the_recorded_ids(pairs, llama2_tokenizer, limits):
    """`<s> query <s> document`, each cut on its own, the query's end giving way where both are full."""
    query_tokens, passage_tokens = map(int, limits.split(","))
    encoder = PairEncoder(
        llama2_tokenizer,
        load_template("rankllama"),
        limits=PairLimits(query_tokens=query_tokens, passage_tokens=passage_tokens),
    )
    compared = 0
    for row in filter(is_comparable, pairs):
        recorded = row["v1"][limits]
        assert recorded["written_rule_agrees"]
        # Without a title key the original's inference drops `document: `, its training does not; neither does rankllm.
        if row["title"] is not None:
            assert encode(encoder, row) == recorded["ids"], row["id"]
            compared += 1
    assert compared >= 40


def test_a_pair_without_a_title_keeps_its_document_prefix(pairs, llama2_tokenizer):
    """As in training: the ids of the written rule, by the tokenizer itself."""
    encoder = PairEncoder(llama2_tokenizer, load_template("rankllama"), limits=PairLimits())
    rows = [row for row in pairs if row["title"] is None and is_comparable(row)]
    assert rows
    for row in rows:
        query = llama2_tokenizer.encode("query: " + row["query"], add_special_tokens=False)[:32]
        document = llama2_tokenizer.encode("document:  " + row["text"], add_special_tokens=False)[:161]
        query = query[: len(query) - max(0, len(query) + len(document) + 4 - 196)]
        assert encode(encoder, row) == [1, *query, 1, *document], row["id"]


def test_text_that_looks_like_control_tokens_stays_text(pairs, llama2_tokenizer):
    """One recorded pair writes `<s>`, `</s>` and `<unk>`: the original reads them as control tokens."""
    (row,) = [row for row in pairs if not is_comparable(row)]
    ids = encode(PairEncoder(llama2_tokenizer, load_template("rankllama"), limits=PairLimits()), row)
    assert [i for i in ids if i in (0, 1, 2)] == [1, 1]
    ids = encode(PairEncoder(llama2_tokenizer, load_template("rankllama-v2"), limits=PairLimits()), row)
    assert [i for i in ids if i in (0, 1, 2)] == [1]


@pytest.mark.parametrize("tokenizer", ["llama2", "smollm2"])
@pytest.mark.parametrize("prefixes", ["documented", "empty", "query_passage"])
def test_the_later_layout_has_the_recorded_ids(pairs, request, prefixes, tokenizer):
    """One string, cut at its end, with EOS or without, for each set of prefixes and both tokenizers."""
    fast = request.getfixturevalue(f"{tokenizer}_tokenizer")
    encoders = {}
    for row in filter(is_comparable, pairs):
        recorded = row["v2"][prefixes]
        for key, expected in recorded[tokenizer].items():
            if key not in encoders:
                encoders[key] = later_encoder(fast, recorded, key)
            assert encode(encoders[key], row) == expected["ids"], (row["id"], key)
    assert len(encoders) >= 2


def later_encoder(tokenizer, recorded, key):
    """The encoder of the recorded prefixes and of a key such as `max196+eos`."""
    most = int(key.removeprefix("max").removesuffix("+eos"))
    # The original puts a blank between prefix and text; ours is written in the template.
    template = replace(
        load_template("rankllama-v2"),
        query=f"{recorded['query_prefix']} {{query}}",
        passage=f"{recorded['passage_prefix']} {{title}} {{text}}",
    )
    limits = PairLimits(query_tokens=20, passage_tokens=most - 20)
    return PairEncoder(tokenizer, template, limits=limits, append_eos=key.endswith("+eos"))


def test_the_shipped_later_layout_has_the_documented_prefixes(pairs, llama2_tokenizer):
    """`rankllama-v2` is the recorded set `documented`, at 196 tokens."""
    encoder = PairEncoder(llama2_tokenizer, load_template("rankllama-v2"), limits=PairLimits())
    for row in filter(is_comparable, pairs):
        assert encode(encoder, row) == row["v2"]["documented"]["llama2"]["max196"]["ids"], row["id"]

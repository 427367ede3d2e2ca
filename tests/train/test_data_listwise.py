"""Listwise records become the ids used at inference, with each answer separated from its prompt."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from training_fakes import SYSTEM, listwise_record  # noqa: E402

from rankllm_core.errors import ConfigError, ContractError, DataError, RankLLMError  # noqa: E402
from rankllm_core.prompts.chat import ChatEncoder  # noqa: E402
from rankllm_core.prompts.template import load_template  # noqa: E402
from rankllm_train.data.records import parse_listwise  # noqa: E402
from rankllm_train.encoding.batches import ListwiseCollator  # noqa: E402
from rankllm_train.encoding.listwise import ListwiseItem, encode_listwise  # noqa: E402
from rankllm_train.encoding.listwise_encoder import ListwiseEncoder  # noqa: E402
from rankllm_train.encoding.prompt_match import how_it_differs, mismatch_notes, template_for  # noqa: E402
from rankllm_train.preparation.windows import RecordWriter  # noqa: E402


def record(number=0, **options):
    return parse_listwise(listwise_record(number, **options), path="d.jsonl", line=number + 1)


def encoded(records, tokenizer, objective="combined", **options):
    encoder = ListwiseEncoder(tokenizer, objective=objective)
    return encode_listwise(records, encoder, objective=objective, **({"context_tokens": 1024} | options))


def test_the_answer_is_the_target_and_eos(smollm2_tokenizer):
    """The ids after the prompt decode to the record's target."""
    source = record()
    (example,) = encoded([source], smollm2_tokenizer).examples
    answer = smollm2_tokenizer.decode(example.token_ids[example.n_prompt :])
    assert answer == source.target + "<|im_end|>"
    assert smollm2_tokenizer.decode([example.token_ids[example.n_prompt]]) == "["


def test_the_ranking_objective_ends_at_the_bracket(smollm2_tokenizer):
    """The last id is `[`, and the prompt before it is the same as for other objectives."""
    (whole,) = encoded([record()], smollm2_tokenizer).examples
    (short,) = encoded([record()], smollm2_tokenizer, "ranking").examples
    assert list(short.token_ids) == list(whole.token_ids[: whole.n_prompt + 1])
    assert short.n_prompt == len(short) - 1


def test_a_prompt_is_that_of_the_chat_encoder(smollm2_tokenizer):
    """System and human turn, as written at inference with the template."""
    source = record(2)
    (example,) = encoded([source], smollm2_tokenizer).examples
    text = (
        f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{source.prompt}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert smollm2_tokenizer.decode(example.token_ids[: example.n_prompt]) == text


def test_a_control_token_in_a_passage_stays_text(smollm2_tokenizer):
    """`<|im_end|>` written in a passage is not the token that ends a turn."""
    raw = listwise_record(0)
    raw["conversations"][1]["value"] = raw["conversations"][1]["value"].replace("[A] ", "[A] <|im_end|> ")
    (example,) = encoded([parse_listwise(raw, path="d", line=1)], smollm2_tokenizer).examples
    assert list(example.token_ids[: example.n_prompt]).count(2) == 2  # ends of the system and the user turn


def test_labels_are_the_answer_shifted_by_one(smollm2_tokenizer):
    """Position t has the token at t + 1; prompt and padding have none."""
    data = encoded([record(0), record(2)], smollm2_tokenizer)
    collate = ListwiseCollator(objective="combined", identifier_ids=data.identifier_ids, pad_id=0)
    batch = collate([data[0], data[1]])
    for row, example in enumerate(data.examples):
        n, m = example.n_prompt, len(example)
        assert batch["labels"][row, n - 1 : m - 1].tolist() == list(example.token_ids[n:])
        others = [*batch["labels"][row, : n - 1].tolist(), *batch["labels"][row, m - 1 :].tolist()]
        assert set(others) == {-100}
        assert batch["read_positions"][row] == n
        assert batch["input_ids"][row, n] == smollm2_tokenizer.convert_tokens_to_ids("[")


def test_a_batch_is_no_wider_than_its_longest_record(smollm2_tokenizer):
    """No constant length; padding is on the right."""
    data = encoded([record(0), record(1), record(2)], smollm2_tokenizer)
    batch = ListwiseCollator(objective="combined", identifier_ids=data.identifier_ids, pad_id=9)([data[0], data[1]])
    longest = max(len(data.examples[0]), len(data.examples[1]))
    assert batch["input_ids"].shape == (2, longest)
    assert batch["input_ids"][0, len(data.examples[0]) :].eq(9).all()
    assert batch["lengths"].tolist() == [len(data.examples[0]), len(data.examples[1])]


def test_lists_of_different_lengths_share_a_batch(smollm2_tokenizer):
    """Ranks are padded with 0, which is not a rank."""
    data = encoded([record(0, n=2), record(1, n=4)], smollm2_tokenizer)
    batch = ListwiseCollator(objective="ranking", identifier_ids=data.identifier_ids, pad_id=0)([data[0], data[1]])
    assert batch["ranks"][0, 2:].tolist() == [0, 0]
    assert sorted(batch["ranks"][1].tolist()) == [1, 2, 3, 4]
    letters = [smollm2_tokenizer.convert_tokens_to_ids(c) for c in "ABCD"]
    assert batch["read_ids"][1].tolist() == letters


def test_an_overlong_record_is_named_or_left_out(smollm2_tokenizer):
    """It is never cut off, which would remove the answer."""
    records = [record(0), record(2)]
    limit = min(len(e) for e in encoded(records, smollm2_tokenizer).examples)
    with pytest.raises(DataError, match=rf"d\.jsonl:3: record 'r2': \d+ tokens exceed the context of {limit}"):
        encoded(records, smollm2_tokenizer, context_tokens=limit)
    data = encoded(records, smollm2_tokenizer, context_tokens=limit, overlong="skip")
    assert (len(data), len(data.skipped)) == (1, 1)


def test_an_overlong_record_can_be_cut_to_fit(smollm2_tokenizer):
    """Passages are truncated to the same number of words; query, instruction and answer are kept."""
    source = record(2, n=4)
    (whole,) = encoded([source], smollm2_tokenizer).examples
    limit = len(whole) - 12
    data = encoded([source], smollm2_tokenizer, context_tokens=limit, overlong="truncate")
    (cut,) = data.examples
    assert (data.n_truncated, data.skipped) == (1, ())
    assert limit - 6 <= len(cut) <= limit
    text = smollm2_tokenizer.decode(cut.token_ids)
    kept = [line.split(" ", 1)[1] for line in text.splitlines() if line[:1] == "[" and line[2:4] == "] "][:4]
    full = [line.split(" ", 1)[1] for line in source.prompt.splitlines() if line[:1] == "["]
    words = max(len(line.split()) for line in kept)
    assert kept == [" ".join(line.split()[:words]) for line in full]
    assert text.endswith(source.target + "<|im_end|>")
    with pytest.raises(DataError, match="even with one word per passage"):
        encoded([source], smollm2_tokenizer, context_tokens=100, overlong="truncate")


def test_a_bad_record_is_named_or_left_out(smollm2_tokenizer):
    """A target that repeats an identifier."""
    raw = listwise_record(1)
    raw["conversations"][2]["value"] = "[A] > [A] > [B]"
    bad = parse_listwise(raw, path="d.jsonl", line=2)
    with pytest.raises(DataError, match=r"d\.jsonl:2: record 'r1': .*repeated \[A\], missing \[C\]"):
        encoded([record(0), bad], smollm2_tokenizer)
    data = encoded([record(0), bad], smollm2_tokenizer, bad_records="skip")
    assert (len(data), len(data.skipped)) == (1, 1)


def test_nothing_left_to_train_on_is_an_error(smollm2_tokenizer):
    """An empty file, or one with bad records only."""
    with pytest.raises(RankLLMError, match="no records to train on"):
        encoded([], smollm2_tokenizer)


def test_two_kinds_of_identifiers_are_refused(smollm2_tokenizer):
    """A model is prompted with one kind."""
    with pytest.raises(ConfigError, match=r"numeric identifiers in d\.jsonl:2.*alpha identifiers in d\.jsonl:1"):
        encoded([record(0), record(1, kind="numeric")], smollm2_tokenizer)


def test_numbers_above_nine_are_no_single_token(smollm2_tokenizer):
    """FIRST reads one token per identifier; generating them is possible."""
    ten = record(0, n=10, kind="numeric")
    with pytest.raises(ContractError, match="identifier '10' is 2 tokens"):
        encoded([ten], smollm2_tokenizer, "ranking")
    assert len(encoded([ten], smollm2_tokenizer, "generation")) == 1


def test_a_model_without_a_chat_template_is_refused(llama2_tokenizer):
    """It could not be prompted at inference either."""
    with pytest.raises(ContractError, match="no chat template"):
        ListwiseEncoder(llama2_tokenizer, objective="generation")


def test_the_template_of_the_records_is_found():
    """Chosen by their identifiers, and checked against their wording."""
    for kind, name in (("alpha", "rank_zephyr_alpha"), ("numeric", "rank_zephyr")):
        records = [record(0, kind=kind)]
        template = template_for(records, given="")
        assert (template.name, mismatch_notes(records, template)) == (name, ())


def test_records_of_another_template_are_told():
    """Prompts at inference would differ from those in training."""
    notes = mismatch_notes([record(0, system=None)], load_template("rank_zephyr_alpha"))
    assert "record 'r0': it lacks the template's system turn" in notes[0]
    other = listwise_record(0)
    other["conversations"][1]["value"] = other["conversations"][1]["value"].replace("concisely", "briefly")
    found = how_it_differs(parse_listwise(other, path="d", line=1), load_template("rank_zephyr_alpha"))
    assert found == "the end of its prompt differs from the template's"


def test_ids_are_those_of_the_text_as_a_whole(smollm2_tokenizer):
    """Tokenizing prompt and target together gives the ids used in training."""
    source = record(1)
    (example,) = encoded([source], smollm2_tokenizer).examples
    text = smollm2_tokenizer.decode(example.token_ids[: example.n_prompt])
    assert list(example.token_ids) == smollm2_tokenizer.encode(text + source.target + "<|im_end|>")
    assert ChatEncoder(smollm2_tokenizer)  # the encoder of inference


def test_items_know_their_place(smollm2_tokenizer):
    """The error of a NaN loss must be able to name its records."""
    data = encoded([record(0), record(1)], smollm2_tokenizer)
    assert isinstance(data[1], ListwiseItem)
    assert data.name(1) == "d.jsonl:2: record 'r1'"


def test_a_templates_own_way_with_a_passage_is_known():
    """Records of a template that repeats the query around each passage match it; those of another do not."""
    behind = load_template("query_behind_alpha")
    before = replace(behind, prefix="{num} for {query}\n", body="Query: {query}\n[{rank}] {candidate}\n", suffix="Go.")
    for template in (behind, before):
        writer = RecordWriter(template=template, identifiers="alpha")
        docs, docids = [{"text": "a"}, {"text": "b"}], ("1", "2")
        made = writer.record("q", docs, docids=docids, best_first=(1, 0), record_id="r")
        assert how_it_differs(parse_listwise(made, path="d", line=1), template) is None
    other = replace(before, body="[{rank}] {candidate}\n")
    found = how_it_differs(parse_listwise(made, path="d", line=1), other)
    assert found == "its first passage is not formatted as the template does"

"""Token ids of two texts in the tokenizer's own format: unchanged if nothing is truncated, and text stays text."""

from __future__ import annotations

import pytest

from rankllm_core.card import PointwiseCard
from rankllm_core.errors import ConfigError, ContractError
from rankllm_core.prompts.pairs import PairEncoder, PairLimits
from rankllm_core.prompts.pointwise_template import PointwiseTemplate
from rankllm_core.prompts.template import load_template
from rankllm_core.prompts.tokens import SafeTokenizer

pytest.importorskip("transformers")

from encoder_models import KINDS, TEXTS, make_tokenizer

QUERY = "How long do llamas live?"
CONTROL = ("[SEP]", "[CLS]", "[PAD]", "[MASK]", "<s>", "</s>", "<pad>", "<mask>")
WIDE = str.maketrans("</>[]", "\uff1c\uff0f\uff1e\uff3b\uff3d")
"""To full-width forms, which some normalizers turn back."""


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    """One tokenizer per family: WordPiece, Unigram (XLM-R, DeBERTa), byte-level BPE (RoBERTa, ModernBERT)."""
    return make_tokenizer(request.param)


def encoder(tokenizer, **limits):
    return PairEncoder(tokenizer, load_template("pair"), limits=PairLimits(**{"passage_tokens": 400} | limits))


@pytest.mark.parametrize(
    "text", [*TEXTS, "", "  two  blanks ", "a\nline\tand tabs", "\u6570\u5b66 \U0001f999", "Zürich"]
)
def test_ids_and_types_are_the_tokenizers_own(tokenizer, text):
    """Query and passage are tokenized separately, whatever a tokenizer adds at the start of a text."""
    # As a batch: alone, transformers takes an empty second text for none.
    batch = tokenizer([(QUERY, text)], return_token_type_ids="token_type_ids" in tokenizer.model_input_names)
    expected = {name: rows[0] for name, rows in batch.items()}
    shown, ids, n_first = encoder(tokenizer).encode_texts(QUERY, title="", text=text)
    assert list(ids) == expected["input_ids"]
    types = expected.get("token_type_ids", [0] * len(ids))
    assert [0] * n_first + [1] * (len(ids) - n_first) == types if n_first else set(types) == {0}
    assert QUERY in shown
    assert text in shown


def test_a_title_stands_before_its_passage(tokenizer):
    """Title and passage are one text, separated by a space."""
    ids = encoder(tokenizer).encode(QUERY, title="Llama", text="They live long.")
    assert list(ids) == tokenizer(QUERY, "Llama They live long.")["input_ids"]


def test_each_text_is_cut_at_its_own_limit(tokenizer):
    """Limits count tokens: the pair equals that of the two truncated texts."""
    query, passage = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (QUERY, TEXTS[1]))
    whole = encoder(tokenizer).encode(QUERY, title="", text=TEXTS[1])
    n_before = whole.index(query[0])
    n_between = len(whole) - n_before - len(query) - len(passage) - 1
    cut = encoder(tokenizer, query_tokens=3, passage_tokens=7).encode(QUERY, title="", text=TEXTS[1])
    assert cut[n_before : n_before + 3] == tuple(query[:3])
    assert cut[n_before + 3 + n_between : -1] == tuple(passage[:7])
    assert len(cut) == len(whole) - len(query) - len(passage) + 3 + 7


def test_a_pair_is_never_longer_than_the_model_takes(tokenizer, monkeypatch):
    """Truncation matches the tokenizer's own truncation of the passage, as CrossEncoder does for short queries."""
    monkeypatch.setattr(tokenizer, "model_max_length", 40)
    passage = " ".join(TEXTS)
    expected = tokenizer("what is", passage, truncation="only_second", max_length=40)["input_ids"]
    assert list(encoder(tokenizer).encode("what is", title="", text=passage)) == expected
    assert len(expected) == 40
    # Each letter is a token at the least in none of these vocabularies.
    with pytest.raises(ConfigError, match=r"a query of \d+ tokens leaves no room .* accepts 40 tokens .* --q-max-len"):
        encoder(tokenizer, query_tokens=200).encode(passage, title="", text="a")


@pytest.mark.parametrize("written", [*CONTROL, *(name.translate(WIDE) for name in CONTROL)])
def test_control_tokens_in_either_text_stay_text(tokenizer, written):
    """XLM-R's vocabulary contains `</s>` as an ordinary piece with the highest score."""
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    plain = encoder(tokenizer).encode("a", title="", text="b")
    n_special = sum(token in special for token in plain)
    for pair in (f"a{written}", "b"), ("a", f"b {written} b"), ("a", written):
        ids = encoder(tokenizer).encode(pair[0], title="", text=pair[1])
        assert sum(token in special for token in ids) == n_special, (written, pair)


def test_other_text_is_split_as_if_no_piece_were_missing():
    """Removing control tokens from the vocabulary has no other effect."""
    for kind in ("unigram", "deberta", "wordpiece"):
        tokenizer = make_tokenizer(kind)
        safe = SafeTokenizer(tokenizer)
        for text in (*TEXTS, "</ s>", "[ SEP ]", "s", "</s", "unk", "\u6570"):
            assert safe.encode(text) == tokenizer.encode(text, add_special_tokens=False), (kind, text)


def test_a_passages_room_is_what_its_query_leaves(tokenizer):
    """Used in training: a long query is truncated at its limit, and a short one leaves more room."""
    tokenizer.model_max_length = 50
    made = encoder(tokenizer, query_tokens=20)
    n_around = len(made.encode("", title="", text=""))
    assert made.passage_room("any " * 50) == 50 - 20 - n_around
    n_short = len(tokenizer.encode("any", add_special_tokens=False))
    assert made.passage_room("any") == 50 - n_short - n_around
    tokenizer.model_max_length = 512
    assert made.passage_room("any") == 400


def test_a_tokenizer_that_only_joins_texts_is_refused(smollm2_tokenizer):
    """SmolLM2's tokenizer puts no separator between two texts."""
    with pytest.raises(ContractError, match="no format for two texts"):
        encoder(smollm2_tokenizer)


def test_the_layout_has_no_texts_of_its_own_and_goes_with_a_score_head():
    """Template text without effect is an error."""
    with pytest.raises(ConfigError, match="template x: body: has no effect with the layout pair"):
        PointwiseTemplate(name="x", layout="pair", body="{query} {document}")
    with pytest.raises(ConfigError, match="head 'yes-no' does not match template 'pair'"):
        PointwiseCard(template=load_template("pair"), head="yes-no")
    assert load_template("pair").to_dict() == {"method": "pointwise", "layout": "pair"}

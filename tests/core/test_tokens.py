"""Untrusted text stays text."""

from __future__ import annotations

import pytest
from foreign_texts import HOSTILE, control_ids

from rankllm_core.errors import ContractError
from rankllm_core.prompts.tokens import MASK, SafeTokenizer, clean, single_ids

pytest.importorskip("transformers")

PLAIN = (
    "what is llama?",
    "Gr\u00f6\u00dfe \u6570 of x",
    "a\nb\tc -  d",
    "  two  blanks ",
    "\U0001f999\U0001f1e9\U0001f1ea e\u0301",
    "x = [1, 2]; y < 3 > z",
    "",
)


@pytest.fixture(scope="module", params=["smollm2_tokenizer", "llama2_tokenizer"])
def tokenizer(request):
    """One tokenizer per family: byte-level and Metaspace."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def safe(tokenizer):
    """The safe version of the tokenizer, created once because it reads the complete vocabulary."""
    return SafeTokenizer(tokenizer)


def tiny_tokenizer(*, prepend_scheme="first", added=(), special=("<s>", "</s>")):
    """A Metaspace tokenizer of a few words, with the given tokens added."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = ["<unk>", "\u2581", *"abcdefghijklmnopqrstuvwxyz</>[]|A"]
    merges = [("\u2581", "a"), ("[", "A"), ("a", "b")]
    vocab = {token: i for i, token in enumerate([*letters, *("".join(pair) for pair in merges)])}
    built = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>"))
    built.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme)
    built.decoder = decoders.Metaspace(prepend_scheme=prepend_scheme)
    built.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    built.add_tokens(list(added))
    return PreTrainedTokenizerFast(tokenizer_object=built, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_gets_the_tokenizers_own_ids(tokenizer, safe, text):
    """Without control tokens in the text, the ids are those of the tokenizer."""
    assert safe.encode(text) == tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_a_control_token(tokenizer, safe, text):
    """Any text is encoded as ordinary tokens, and the ids decode to the text."""
    ids = safe.encode(text)
    assert control_ids(tokenizer, ids) == []
    # Llama's decoder drops a leading blank.
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False).lstrip(" ") == clean(text).lstrip(" ")


def test_lone_surrogates_become_the_replacement_character():
    """Tokenizers reject them; valid pairs and all other text are unchanged."""
    assert clean("a\ud800b\udfff") == "a\ufffdb\ufffd"
    assert clean("\ud83e\udd99") == "\U0001f999"
    assert clean("plain \U0001f999") == "plain \U0001f999"


def test_added_tokens_that_look_like_markup_count_as_control():
    """Qwen3 does not mark `<think>` as special, but a passage must not produce it. Other added words are ordinary."""
    from tokenizers import AddedToken

    added = [AddedToken("<think>", special=False, normalized=False), AddedToken("lol", special=False, normalized=False)]
    tokenizer = tiny_tokenizer(added=added)
    safe = SafeTokenizer(tokenizer)
    assert tokenizer.convert_tokens_to_ids("<think>") not in safe.encode("a <think> b")
    assert safe.control_in("<s>a <think>lol</think></s>") == ["<s>", "<think>", "</s>"]


def test_added_words_keep_their_ids():
    """Removing control tokens must not shift the ids of tokens added after them."""
    from tokenizers import AddedToken

    tokenizer = tiny_tokenizer(added=[AddedToken("lol", special=False, normalized=False)])
    safe = SafeTokenizer(tokenizer)
    expected = tokenizer.encode("a lol b", add_special_tokens=False)
    assert tokenizer.convert_tokens_to_ids("lol") in expected
    assert safe.encode("a lol b") == expected
    assert safe.encode_prompt("a lol b" + MASK, add_special_tokens=False) == expected


@pytest.mark.parametrize(
    ("prepend_scheme", "prompt"),
    [
        ("first", "<s>a b</s>c ab</s> d"),
        ("first", "a b</s>c ab</s>"),
        ("always", "<s>a b</s>c ab</s> d"),
        ("never", "<s>a b</s>c ab</s> d"),
        ("first", "<s></s></s>a"),
    ],
)
def test_a_prompt_in_pieces_has_the_ids_of_the_whole(prepend_scheme, prompt):
    """For any position of the separator, the other pieces get the tokenizer's ids."""
    tokenizer = tiny_tokenizer(prepend_scheme=prepend_scheme)
    safe = SafeTokenizer(tokenizer)
    whole = tokenizer.encode(prompt, add_special_tokens=False)
    for place in range(len(prompt) + 1):
        broken = prompt[:place] + MASK + prompt[place:]
        if safe.control_in(broken) == safe.control_in(prompt):
            assert safe.encode_prompt(broken, add_special_tokens=False) == whole, place


def test_control_tokens_that_swallow_blanks_do_so_in_pieces_too():
    """`lstrip` and `rstrip` of an added token remove adjacent whitespace."""
    from tokenizers import AddedToken

    added = [AddedToken("<sep>", special=True, normalized=False, lstrip=True, rstrip=True)]
    tokenizer = tiny_tokenizer(added=added)
    prompt = "<s>a  <sep>  b <sep>c"
    whole = tokenizer.encode(prompt, add_special_tokens=False)
    assert SafeTokenizer(tokenizer).encode_prompt(prompt + MASK, add_special_tokens=False) == whole


def test_a_broken_control_token_is_text_beside_one_that_is_meant(tokenizer, safe):
    """The mask decides per token, and it does not appear in the ids."""
    end = tokenizer.eos_token
    assert safe.mask_control(f"a{end}b") == f"a{end[:-1]}{MASK}{end[-1]}b"
    ids = safe.encode_prompt(safe.mask_control(f"a{end}b") + end, add_special_tokens=False)
    assert control_ids(tokenizer, ids) == [tokenizer.eos_token_id]
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1], clean_up_tokenization_spaces=False) == f"a{end}b"


def test_leading_ids_are_what_the_tokenizer_puts_before_a_text(llama2_tokenizer, smollm2_tokenizer):
    """Llama 2 adds BOS, SmolLM2 nothing."""
    assert SafeTokenizer(llama2_tokenizer).leading_ids() == [1]
    assert SafeTokenizer(smollm2_tokenizer).leading_ids() == []
    safe = SafeTokenizer(llama2_tokenizer)
    assert safe.encode_prompt("a" + MASK, add_special_tokens=True) == llama2_tokenizer.encode("a")


@pytest.mark.parametrize("text", [*PLAIN, *HOSTILE, "\U0001f999" * 20, "\u4e2d\u6587" * 20, "word " * 50])
def test_a_clipped_text_is_a_beginning_within_the_limit(safe, text):
    """A character of several tokens is kept or dropped, never split."""
    for limit in (0, 1, 2, 3, 5, 8, 500):
        clipped = safe.clip(text, limit)
        assert clean(text).startswith(clipped)
        assert len(safe.encode(clipped)) <= limit or clipped == ""
    assert safe.clip(text, 500) == clean(text)


def test_clipping_keeps_as_much_as_fits(smollm2_tokenizer):
    """`word` and ` word` are one token each."""
    safe = SafeTokenizer(smollm2_tokenizer)
    assert safe.clip("word word word word", 3) == "word word word"


def test_identifiers_are_the_bare_tokens_behind_the_bracket(smollm2_tokenizer, llama2_tokenizer):
    """`A` as in `[A`, not the token for a word that begins with a space. Ids recorded from the models."""
    letters = tuple("ABCDEFGHIJKLMNOPQRST")
    assert single_ids(SafeTokenizer(smollm2_tokenizer), letters, after="[") == list(range(49, 69))
    assert single_ids(SafeTokenizer(smollm2_tokenizer), tuple("123456789"), after="[") == list(range(33, 42))
    (letter,) = single_ids(SafeTokenizer(llama2_tokenizer), ("A",), after="[")
    assert llama2_tokenizer.convert_ids_to_tokens(letter) == "A"


def test_an_identifier_of_two_tokens_is_refused(safe):
    """Both tokenizers split 10 into two digits; reading the first would rank it as 1."""
    with pytest.raises(ContractError, match=r"identifier '10' is 2 tokens after '\[', expected one"):
        single_ids(safe, ("9", "10"), after="[")


def test_the_unknown_token_is_read_where_it_is_asked_for_by_name(llama2_tokenizer):
    """ctxl-rerank-v2 6B is read at token 0, which is `<unk>` in its vocabulary, as in Llama 2's."""
    safe = SafeTokenizer(llama2_tokenizer)
    assert single_ids(safe, ("<unk>",), after=" ??") == [0]
    with pytest.raises(ContractError, match="expected one"):
        single_ids(safe, ("<nothing>",), after=" ??")


def test_an_identifier_glued_to_the_bracket_is_read_as_its_own_token():
    """If `[A` is one token, the letter's own token is used, as in training."""
    tokenizer = tiny_tokenizer(prepend_scheme="never")
    assert len(tokenizer.encode("[A", add_special_tokens=False)) == 1
    expected = tokenizer.convert_tokens_to_ids("A")
    assert single_ids(SafeTokenizer(tokenizer), ("A",), after="[") == [expected]


def test_a_slow_tokenizer_is_refused():
    """Safe encoding needs the fast tokenizer's file."""

    class SlowTokenizer:
        """A tokenizer without a backend."""

    with pytest.raises(ContractError, match=r"SlowTokenizer is not a fast tokenizer.*tokenizer\.json"):
        SafeTokenizer(SlowTokenizer())

"""Valid continuations of a permutation answer: exactly the ids in which the tokenizer writes such answers."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

pytest.importorskip("transformers")

from permutation_fakes import every_answer, letter_tokenizer, letter_tokenizer_that_glues

from rankllm_core.errors import ContractError
from rankllm_core.prompts.tokens import SafeTokenizer
from rankllm_core.types import CHAIN, AnswerForm, identifiers
from rankllm_infer.engines.transformers.permutation_ids import AnswerWalk, permutation_ids

FORMS = {
    "chain": CHAIN,
    "passages": AnswerForm(opening="[PASSAGE", link=", PASSAGE", closing="]"),
    "rankstart": AnswerForm(opening="[rankstart] [", link="] > [", closing="] [rankend]"),
}
PROMPTS = ("<|im_start|>assistant\n", "<|user|>\nhi\n<|assistant|>\n", "ASSISTANT:", "</s>", "[/INST]")


@pytest.fixture(scope="module", params=["smollm2_tokenizer", "llama2_tokenizer"])
def safe(request):
    """Each of the two families: byte-level and Metaspace."""
    return SafeTokenizer(request.getfixturevalue(request.param))


def follow(walk, ids):
    """Walk along the ids; if one is not a valid continuation, return it."""
    for place, token in enumerate(ids):
        if place < len(walk.ids):
            assert walk.ids[place] == token
        elif walk.is_done:
            return
        else:
            assert token in walk.following()
            walk.take(token)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    ("kind", "n"), [("alpha", 20), ("numeric", 20), ("numeric", 101), ("alpha", 2), ("numeric", 3)]
)
def test_the_ids_of_every_answer_are_those_of_prompt_and_answer_in_one(safe, kind, n, form):
    """As in training: the tokenizer's ids of the whole text, which begin with the prompt's."""
    labels = identifiers(kind, n)
    for seed, prompt in enumerate(PROMPTS):
        prompt_ids = safe.encode_prompt(prompt, add_special_tokens=False)
        pieces = permutation_ids(safe, labels, form, prompt=prompt)
        order = random.Random(seed).sample(range(n), n)
        for lead in ("", " ", "\n"):
            text = lead + form.write([labels[position] for position in order])
            whole = safe.encode_prompt(prompt + text, add_special_tokens=False)
            if whole[: len(prompt_ids)] != prompt_ids:
                continue  # such as `][`, which is one token
            walk = AnswerWalk(pieces, n)
            follow(walk, whole[len(prompt_ids) :])
            assert walk.order == order[:-1]
            assert [*walk.ids, *pieces.last[order[-1]]] == whole[len(prompt_ids) :]
            assert walk.n_tokens == len(whole) - len(prompt_ids)


@pytest.mark.parametrize("make", [letter_tokenizer, letter_tokenizer_that_glues])
@pytest.mark.parametrize("labels", [("A", "B", "C"), ("1", "2", "10", "12"), ("1", "11", "111")])
def test_every_permutation_can_be_written_and_nothing_else(make, labels):
    """All walks, for few identifiers: `1` is a prefix of `10`, and can be closed only while it is unused."""
    safe = SafeTokenizer(make())
    pieces = permutation_ids(safe, labels, CHAIN, prompt="\n")
    found = set()

    def explore(ids):
        walk = AnswerWalk(pieces, len(labels))
        follow(walk, ids)
        if walk.is_done:
            (rest,) = set(range(len(labels))).difference(walk.order)
            found.add((*walk.ids, *pieces.last[rest]))
        else:
            for token in walk.following():
                explore((*walk.ids, token))

    explore(())
    assert found == set(every_answer(safe, labels, prompt="\n"))
    assert len(found) == 3 * len(list(permutations(labels)))


def test_a_walk_that_stops_early_has_named_so_many():
    """Top 2 of 5: two choices, and the tokens of an answer that names two."""
    safe = SafeTokenizer(letter_tokenizer())
    pieces = permutation_ids(safe, tuple("ABCDE"), CHAIN, prompt="\n")
    walk = AnswerWalk(pieces, 2)
    follow(walk, safe.encode("[D] > [B] > [A]"))
    assert walk.is_done
    assert walk.order == [3, 1]
    assert walk.n_tokens == len("[D] > [B]")  # a letter is a token


@pytest.mark.parametrize("labels", [("A",), ()])
def test_nothing_to_choose_is_done_at_once(labels):
    """A single passage has only one order."""
    walk = AnswerWalk(permutation_ids(SafeTokenizer(letter_tokenizer()), labels, CHAIN, prompt="\n"), len(labels))
    assert walk.is_done
    assert walk.n_tokens == 3 * len(labels)


def test_a_tokenizer_that_joins_neighbours_is_refused():
    """`A] > [B` is one token, but no other pair is: no ids correspond to a single identifier."""
    merges = [("A", "]"), ("A]", " "), ("A] ", ">"), ("A] >", " "), ("A] > ", "["), ("A] > [", "B")]
    safe = SafeTokenizer(letter_tokenizer(merges=merges))
    with pytest.raises(ContractError, match=r"encodes the identifiers 'A' to 'C' differently .* use --free-decoding"):
        permutation_ids(safe, tuple("ABC"), CHAIN, prompt="\n")

"""Tiny tokenizers whose tokens are characters, and the answers that are permutations, written out one by one."""

from __future__ import annotations

from itertools import permutations

from rankllm_core.types import CHAIN

CHARACTERS = "\n []>ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefghijklmnopqrstuvwxyz"


def letter_tokenizer(*, merges=()):
    """A token a character, `</s>` at the end (id 0), and what merges join."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocab = {text: i for i, text in enumerate(["</s>", *CHARACTERS, *("".join(pair) for pair in merges)])}
    built = Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    built.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=built, eos_token="</s>", pad_token="</s>")


def letter_tokenizer_that_glues():
    """Some identifiers are one token with their bracket, some only behind a blank, and so are some links."""
    return letter_tokenizer(
        merges=[("[", "A"), (" ", "[A"), (" ", "["), (" [", "1"), (" [", "B"), ("]", " "), ("] ", ">")]
    )


def every_answer(safe, labels, *, prompt):
    """The ids of every permutation's answer behind a prompt, at once, behind a blank and behind a line break."""
    before = safe.encode_prompt(prompt, add_special_tokens=False)
    for order in permutations(labels):
        for lead in ("", " ", "\n"):
            whole = safe.encode_prompt(prompt + lead + CHAIN.write(order), add_special_tokens=False)
            if whole[: len(before)] == before:
                yield tuple(whole[len(before) :])

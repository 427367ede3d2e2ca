"""Decoding constrained to permutations: greedy, for several prompts at once, in few passes."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("torch")

import tiny_models
import torch
from permutation_fakes import CHARACTERS, every_answer, letter_tokenizer, letter_tokenizer_that_glues

from rankllm_core.answers.reader import read_answer
from rankllm_core.prompts.tokens import SafeTokenizer
from rankllm_core.types import CHAIN, Usage, identifiers
from rankllm_infer.engines.base import Answer, EngineError, Prompt
from rankllm_infer.engines.transformers.engine import BatchLimits, TransformersEngine
from rankllm_infer.engines.transformers.model import LoadedModel

N_TOKENS = len(CHARACTERS) + 16


def loaded(model, tokenizer):
    """A model in the form the engine takes."""
    return LoadedModel(model=model.eval(), tokenizer=tokenizer, dtype=torch.float32, device=torch.device("cpu"))


def llama(**options):
    """A two-layer character-level Llama."""
    from transformers import LlamaForCausalLM

    config = tiny_models.config(hidden=64)
    config.update({"vocab_size": N_TOKENS, "eos_token_id": 0, "pad_token_id": 0, "bos_token_id": 0} | options)
    return LlamaForCausalLM(config)


def other_models():
    """Models that differ in what decoding depends on: biased heads, sliding windows, recurrent states, positions."""
    from transformers import (
        Gemma2Config,
        Gemma2ForCausalLM,
        GPT2Config,
        GPT2LMHeadModel,
        JambaConfig,
        JambaForCausalLM,
        Lfm2Config,
        Lfm2ForCausalLM,
        Mamba2Config,
        Mamba2ForCausalLM,
        MistralConfig,
        MistralForCausalLM,
        PhiConfig,
        PhiForCausalLM,
    )

    shape = {"vocab_size": N_TOKENS, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4}
    ends = {"eos_token_id": 0, "pad_token_id": 0, "bos_token_id": 0, "initializer_range": 1.0}
    grouped = shape | ends | {"num_hidden_layers": 2, "num_key_value_heads": 2}
    return {
        "biased head": lambda: PhiForCausalLM(PhiConfig(**shape, **ends, num_hidden_layers=2)),
        "short window": lambda: MistralForCausalLM(MistralConfig(**grouped, sliding_window=16)),
        "long window": lambda: MistralForCausalLM(MistralConfig(**grouped, sliding_window=4096)),
        "capped logits": lambda: Gemma2ForCausalLM(
            Gemma2Config(**grouped, head_dim=8, sliding_window=16, final_logit_softcapping=5.0)
        ),
        "learnt positions": lambda: GPT2LMHeadModel(
            GPT2Config(vocab_size=N_TOKENS, n_embd=32, n_layer=2, n_head=4, n_positions=72, **ends)
        ),
        "state space": lambda: Mamba2ForCausalLM(
            Mamba2Config(
                **(shape | ends), num_hidden_layers=2, state_size=8, num_heads=8, head_dim=8, n_groups=1, chunk_size=4
            )
        ),
        "hybrid": lambda: JambaForCausalLM(
            JambaConfig(
                **grouped,
                num_experts=2,
                mamba_d_state=8,
                mamba_dt_rank=4,
                attn_layer_period=2,
                attn_layer_offset=1,
            )
        ),
        "states that sum up": lambda: Lfm2ForCausalLM(
            Lfm2Config(**grouped, layer_types=["conv", "full_attention"], conv_L_cache=3, tie_word_embeddings=False)
        ),
    }


def ask(labels, *, seed, length, top_k=None):
    """A prompt of random characters that ends in a line break."""
    text = "".join(random.Random(seed).choices(CHARACTERS[6:], k=length)) + "\n"
    ids = tuple(letter_tokenizer().encode(text))
    return Prompt(text=text, read="permutation", identifiers=labels, token_ids=ids, max_new_tokens=24, top_k=top_k)


def run(model, prompts, **limits):
    """Answers in prompt order."""
    engine = TransformersEngine(model, limits=BatchLimits(**limits))
    for ticket, prompt in enumerate(prompts):
        engine.submit(ticket, prompt)
    found = {}
    while batch := engine.collect():
        found |= dict(batch)
    return [found[ticket] for ticket in range(len(prompts))]


def best_answer(model, prompt, answers):
    """By brute force: the full prompt again for each token, taking the best token that continues a permitted answer."""
    ids = []
    while (following := {answer[len(ids)] for answer in answers if answer[: len(ids)] == tuple(ids)}) != {None}:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*prompt.token_ids, *ids]]), use_cache=False).logits[0, -1]
        ids.append(max(sorted(following), key=lambda token: logits[token].item()))
    return ids


def check_against_brute_force(model, tokenizer, labels, *, lengths=(3, 30, 11, 30, 1, 47)):
    """Prompts of different lengths, together and one by one."""
    safe = SafeTokenizer(tokenizer)
    answers = [(*ids, None) for ids in every_answer(safe, labels, prompt="\n")]
    prompts = [ask(labels, seed=seed, length=length) for seed, length in enumerate(lengths)]
    expected = []
    for prompt in prompts:
        ids = best_answer(model, prompt, answers)
        usage = Usage(calls=1, prompt_tokens=len(prompt.token_ids), completion_tokens=len(ids))
        expected.append(Answer(text=tokenizer.decode(ids).strip(), usage=usage))
    assert len({answer.text for answer in expected}) > 1
    for limits in ({"max_prompts": 1}, {"max_prompts": 4}, {"max_prompts": 16}):
        assert run(loaded(model, tokenizer), prompts, **limits) == expected


@pytest.mark.parametrize("labels", [("A", "B", "C", "D"), ("1", "2", "10", "12"), ("1", "11", "2")])
@pytest.mark.parametrize("make", [letter_tokenizer, letter_tokenizer_that_glues])
def test_each_token_is_the_best_that_leads_to_a_permutation(make, labels):
    """With any guesses, forced tokens, padding and caches."""
    torch.manual_seed(4)
    check_against_brute_force(llama().eval(), make(), labels)


@pytest.mark.parametrize("kind", other_models())
def test_so_it_is_for_every_kind_of_model(kind):
    """Models that cannot be padded decode one prompt at a time, with the same result."""
    torch.manual_seed(5)
    # transformers' convolutions before a state expect a prompt of four tokens at least.
    lengths = (3, 30, 11, 30, 5, 47) if kind in ("state space", "hybrid") else (3, 30, 11, 30, 1, 47)
    model = other_models()[kind]().eval()
    check_against_brute_force(model, letter_tokenizer(), ("1", "2", "10", "12"), lengths=lengths)


N_LEARNT = 12


@pytest.fixture(scope="module")
def ranker():
    """A model trained to answer certain prompts with permutations of 12, and the prompts."""
    torch.manual_seed(6)
    tokenizer, model = letter_tokenizer(), llama()
    labels = identifiers("numeric", 12)
    prompts, rows = [], []
    for seed in range(N_LEARNT):
        prompt = ask(labels, seed=seed, length=12 - seed // 2)
        order = random.Random(100 + seed).sample(labels, len(labels))
        prompts.append(prompt)
        rows.append([*prompt.token_ids, *tokenizer.encode(("", " ", "\n")[seed % 3] + CHAIN.write(order)), 0])
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    labels_BT = torch.full_like(ids, -100)
    for labels_T, row, prompt in zip(labels_BT, rows, prompts, strict=True):
        start = len(prompt.token_ids)
        labels_T[start : len(row)] = torch.tensor(row[start:])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(400):
        loss = model(input_ids=ids, labels=labels_BT).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.01:
            break
    return loaded(model, tokenizer), prompts


def free_answer(model, prompt):
    """Greedy output of plain `generate`."""
    ids = torch.tensor([prompt.token_ids])
    output = model.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=80, pad_token_id=0
    )
    return model.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.06])
def test_where_free_greedy_decoding_writes_a_ranking_it_is_the_same(ranker, noise):
    """The trained ranker, also with perturbed weights: some of its answers are then complete and some not."""
    model, prompts = ranker
    clean = {name: weights.clone() for name, weights in model.model.state_dict().items()}
    torch.manual_seed(7)
    with torch.no_grad():
        for weights in model.model.parameters():
            weights += noise * weights.std() * torch.randn_like(weights)
    try:
        written = [free_answer(model, prompt) for prompt in prompts]
        held = [run(model, prompts, max_prompts=size) for size in (1, 5)]
    finally:
        model.model.load_state_dict(clean)
    labels = prompts[0].identifiers
    whole = [place for place, text in enumerate(written) if read_answer(text, labels).status == "ok"]
    assert len(whole) >= (N_LEARNT if not noise else 2)
    for place in whole:
        for answers in held:
            assert answers[place].text == written[place].strip()
    for answer in (*held[0], *held[1]):
        assert read_answer(answer.text, labels).status == "ok"
    assert held[0] == held[1]


def count_passes(model, prompts):
    """Number of forward passes, and the answers."""
    passes = []
    hook = model.model.register_forward_hook(lambda *_: passes.append(1))
    try:
        answers = run(model, prompts, max_prompts=16)
    finally:
        hook.remove()
    return len(passes), answers


def test_an_identifier_of_one_token_costs_one_pass_and_the_last_one_none(ranker):
    """20 letters: one pass for the prompt, 18 more, and the twentieth is the only one left."""
    model, _ = ranker
    model.model.config.max_position_embeddings = 512
    prompts = [ask(identifiers("alpha", 20), seed=1, length=30)] * 3
    passes, (answer, *_) = count_passes(model, prompts)
    assert passes in (19, 20)  # one more where the answer begins with a blank: the guess was wrong
    assert read_answer(answer.text, prompts[0].identifiers).status == "ok"
    fewer, _ = count_passes(model, [ask(identifiers("alpha", 20), seed=1, length=30, top_k=5)])
    assert passes - fewer == 14
    assert count_passes(model, [ask(("A",), seed=1, length=30)]) == (
        0,
        [Answer(text="[A]", usage=Usage(calls=1, prompt_tokens=31, completion_tokens=3))],
    )


def test_the_rest_of_a_window_keeps_its_order(ranker):
    """Top 3 of 12: like a full decoding, then the rest in prompt order. Each letter is one token."""
    model, prompts = ranker
    labels = prompts[0].identifiers
    (everything,) = run(model, [prompts[0]])
    (top,) = run(model, [Prompt(**{f: getattr(prompts[0], f) for f in Prompt.__slots__} | {"top_k": 3})])
    first = read_answer(everything.text, labels).order[:3]
    assert top.text == CHAIN.write([labels[i] for i in (*first, *(i for i in range(12) if i not in first))])
    assert top.usage.completion_tokens == len(CHAIN.write([labels[i] for i in first]))
    assert everything.usage.completion_tokens == len(everything.text) == len(CHAIN.write(labels))


def test_logits_that_are_not_numbers_fail_their_prompt_alone():
    """A model that overflows on one prompt: the others are answered normally."""
    torch.manual_seed(8)
    model = loaded(llama(), letter_tokenizer())
    prompts = [ask(("A", "B", "C"), seed=seed, length=9) for seed in range(3)]
    before = run(model, prompts)
    odd = len(CHARACTERS) + 5
    with torch.no_grad():
        model.model.model.embed_tokens.weight[odd] = float("nan")
    spoilt = Prompt(
        text="\n", read="permutation", identifiers=("A", "B", "C"), token_ids=(odd, *prompts[1].token_ids[1:])
    )
    answers = run(model, [prompts[0], spoilt, prompts[2]])
    assert isinstance(answers[1], EngineError)
    assert "are NaN" in str(answers[1])
    assert (answers[0], answers[2]) == (before[0], before[2])


def test_the_model_keeps_its_head(ranker):
    """Generation and FIRST find it unchanged, also after an error."""
    model, prompts = ranker
    head = model.model.get_output_embeddings()
    run(model, prompts[:2])
    assert model.model.get_output_embeddings() is head

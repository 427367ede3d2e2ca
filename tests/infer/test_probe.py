"""A model is recognized by the probe in its card: the right one in every dtype and batch, a wrong one in none."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from probed_models import CARDS, change_weights, keep_probe, load, rounded, small_tokenizer  # noqa: E402
from tiny_models import save_adapter, save_causal, save_classifier  # noqa: E402

from rankllm_core.card import load_card, save_card  # noqa: E402
from rankllm_core.probe import new_requests  # noqa: E402


@pytest.fixture(scope="module")
def tokenizer():
    """A small one, so that models load fast."""
    return small_tokenizer()


@pytest.fixture(scope="module")
def models(tmp_path_factory, tokenizer):
    """A folder of tiny models by kind, each with a probe recorded in float32."""
    home = tmp_path_factory.mktemp("probed")
    save_causal(home / "base", tokenizer, max_position_embeddings=2048)
    save_classifier(home / "head", tokenizer)
    save_adapter(home / "adapter", home / "base")
    for name in ("yes-no", "FIRST", "generation", "pairwise"):
        shutil.copytree(home / "base", home / name)
    for name, card in CARDS.items():
        save_card(card, home / name)
        keep_probe(home / name)
    return home


@pytest.fixture
def copy_of(models, tmp_path):
    """A model that a test may modify."""
    return lambda name: shutil.copytree(models / name, tmp_path / name)


def doubts(folder, dtype="float32", **options):
    """Warnings of a model on loading."""
    with load(folder, dtype, **options) as reranker:
        return [warning for warning in reranker.warnings if "probe" in warning]


def logits_after(model, tokenizer, text):
    """Plain transformers' logits after a text."""
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        return model(input_ids=ids).logits[0, -1]


@pytest.mark.parametrize(("name", "labels"), [("FIRST", "ABCD"), ("generation", "1234")])
def test_a_listwise_probe_holds_the_logits_of_plain_transformers(
    tiny_causal, smollm2_tokenizer, tmp_path, name, labels
):
    """FIRST and generation: identifier logits after the prompt and an opening bracket."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_causal, dtype=torch.float32).eval()
    folder = shutil.copytree(tiny_causal, tmp_path / name)
    save_card(CARDS[name], folder)
    keep_probe(folder)
    card = load_card(folder)
    for request, query in zip(new_requests(), card.probe.queries, strict=True):
        texts = [str(candidate.doc["text"]) for candidate in request.candidates]
        turns = card.template.render(request.query.text, texts, labels=list(labels))
        chat = [{"role": turn.role, "content": turn.content} for turn in turns]
        text = smollm2_tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        logits = logits_after(model, smollm2_tokenizer, text + "[")
        expected = [float(logits[smollm2_tokenizer.encode(label)[0]]) for label in labels]
        assert query.scores == pytest.approx(expected, abs=1e-4)


def test_a_pointwise_probe_holds_the_scores_of_plain_transformers(models, tokenizer):
    """RankLLaMA's pair, written out here."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(models / "head", dtype=torch.float32).eval()
    for request, query in zip(new_requests(), load_card(models / "head").probe.queries, strict=True):
        with load(models / "head") as reranker:
            prompts = next(reranker.method.flow(request))
        for candidate, prompt, score in zip(request.candidates, prompts, query.scores, strict=True):
            shown = tokenizer.decode(prompt.token_ids)
            assert f"query: {request.query.text}" in shown
            assert str(candidate.doc["text"]) in shown
            with torch.inference_mode():
                expected = float(model(input_ids=torch.tensor([prompt.token_ids])).logits[0, 0])
            assert score == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("dtype", "batch_size"), [("float32", None), ("bfloat16", None), ("bfloat16", 1), ("float16", None)]
)
@pytest.mark.parametrize("name", list(CARDS))
def test_the_right_model_raises_no_doubt(models, name, dtype, batch_size):
    """Alone and in batches, in the recorded dtype and in others."""
    assert doubts(models / name, dtype, verify=True, batch_size=batch_size) == []


@pytest.mark.parametrize("name", ["head", "FIRST"])
def test_a_probe_recorded_in_bfloat16_fits_float32(copy_of, name):
    """The tolerance is that of the less precise dtype."""
    folder = copy_of(name)
    keep_probe(folder, "bfloat16")
    assert load_card(folder).probe.dtype == "bfloat16"
    assert doubts(folder, "float32") == []
    assert doubts(folder, "bfloat16") == []


def other_base(models, folder, options):
    """Weights from another random seed."""
    base = models / "other base"
    if not base.exists():
        shutil.copytree(models / "base", base)
        draw = torch.Generator().manual_seed(11)
        change_weights(base, lambda name, tensor: torch.randn(tensor.shape, generator=draw) * tensor.std())
    options["base_model"] = str(base)


def other_template(models, folder, options):
    """The layout of RankLLaMA's second version."""
    options["template"] = "rankllama-v2"


def edited_template(models, folder, options):
    """With an additional sentence."""
    card = load_card(folder)
    save_card(replace(card, template=replace(card.template, suffix="Which is best?\n" + card.template.suffix)), folder)


def no_deltas(models, folder, options):
    """An untrained adapter."""
    change_weights(folder, lambda name, t: t * 0 if "lora_B" in name else t, file="adapter_model.safetensors")


def one_delta(models, folder, options):
    """One of the adapter's matrices has the opposite sign."""
    spoil = "layers.0.self_attn.v_proj.lora_B"
    change_weights(folder, lambda name, t: -t if spoil in name else t, file="adapter_model.safetensors")


def new_head(models, folder, options):
    """A randomly initialized score layer, as for a checkpoint without one."""
    draw = torch.Generator().manual_seed(12)
    change_weights(
        folder,
        lambda name, t: torch.randn(t.shape, generator=draw) * t.std() if name == "score.weight" else t,
    )


def four_bits(models, folder, options):
    """Weights as stored by NF4 and AWQ, with a coarser scale."""
    change_weights(folder, rounded(4))


def eight_bits(models, folder, options):
    """One scale per row."""
    change_weights(folder, rounded(8))


def without_alpha(models, folder, options):
    """Passages labelled with numbers."""
    options |= {"use_alpha": False, "window_size": 9, "stride": 9}


def system_message(models, folder, options):
    """Not the one used in training."""
    options["system_message"] = "You are a pirate."


def other_bos(models, folder, options):
    """An additional BOS: some of castorini's published checkpoints were trained with it, others without."""
    save_card(replace(load_card(folder), bos="double"), folder)


WRONG = [
    ("adapter", other_base, "both"),
    ("adapter", no_deltas, "both"),
    ("adapter", one_delta, "both"),
    ("adapter", other_template, "both"),
    ("head", other_template, "both"),
    ("head", new_head, "both"),
    ("head", four_bits, "both"),
    ("head", eight_bits, "float32"),
    ("yes-no", four_bits, "both"),
    ("FIRST", edited_template, "both"),
    ("FIRST", four_bits, "both"),
    ("FIRST", eight_bits, "float32"),
    ("FIRST", without_alpha, "both"),
    ("FIRST", system_message, "both"),
    ("generation", edited_template, "both"),
    ("generation", four_bits, "both"),
    ("generation", system_message, "float32"),
    ("FIRST", other_bos, "float32"),
    ("generation", other_bos, "float32"),
]
"""Kind of model, what is wrong with it, and the dtypes in which that is more than rounding: in a random model of two
layers a token at the beginning changes little."""
CASES = [
    (name, wrong, dtype)
    for name, wrong, where in WRONG
    for dtype in ("float32", "bfloat16")
    if dtype in where or where == "both"
]


@pytest.mark.parametrize(("name", "wrong", "dtype"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_a_wrong_model_is_told_by_both_scores(models, copy_of, name, wrong, dtype):
    """In one warning that shows recorded and found scores, and lists possible causes."""
    folder, options = copy_of(name), {}
    wrong(models, folder, options)
    (warning,) = doubts(folder, dtype, **options)
    assert warning.startswith("the model's scores differ from those recorded in its card (probe): query '")
    assert "(float32), found " in warning
    assert f"({dtype}), tolerance " in warning
    assert warning.endswith("check the base model, adapter, template, BOS rule, quantization and score head")
    assert "\n" not in warning

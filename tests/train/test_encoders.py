"""Cross-encoders: initial head, adapted layers, one step compared with plain transformers, and rejections."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

from encoder_models import (  # noqa: E402
    MODELS,
    POSITIONS,
    drop_weights,
    make_tokenizer,
    save_encoder,
    save_headless,
    save_modular,
)
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny_models import change_json  # noqa: E402
from training_fakes import pointwise_record, write_records  # noqa: E402

from rankllm_core.errors import ConfigError, ContractError, RankLLMError  # noqa: E402
from rankllm_core.files.manifest import MANIFEST_NAME  # noqa: E402
from rankllm_train.api import train  # noqa: E402
from rankllm_train.artifacts.merge import merge  # noqa: E402
from rankllm_train.models.heads import head_parts, is_in_head  # noqa: E402
from rankllm_train.models.loading import load_model  # noqa: E402
from rankllm_train.recipe.recipe import Recipe  # noqa: E402
from rankllm_train.recipe.sections import LoraSection, ModelSection  # noqa: E402

STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "pooler_dropout": 0.0}
"""Without dropout, so that a step can be compared."""
HEADS = {
    "Albert": {"albert.pooler", "classifier"},
    "Bert": {"bert.pooler", "classifier"},
    "Deberta": {"pooler", "classifier"},
    "DebertaV2": {"pooler", "classifier"},
    "DistilBert": {"pre_classifier", "classifier"},
    "ModernBert": {"head", "classifier"},
}
"""Modules between the last states and the score; `classifier` for the others."""


ADAPTERS = {"r": 4, "dropout": 0.0, "target_modules": ("all-linear",)}
NOT_RECOMPUTED = ("Albert", "MPNet")
"""Models that transformers cannot run with gradient checkpointing."""


def load(base, *, say=lambda line: None, attention="auto", **lora):
    section = ModelSection(name_or_path=str(base), precision="fp32", attn_implementation=attention)
    lora = LoraSection(enabled=bool(lora), **lora)
    return load_model(section, kind="sequence-classification", lora=lora, seed=1, say=say)


def recipe_for(base, out, **changes):
    root = out.parent
    values = {
        "model.name_or_path": str(base),
        "model.precision": "fp32",
        "data.train": write_records(root / "p.jsonl", [pointwise_record(i) for i in range(4)]),
        "data.group_size": 4,
        "batch.per_device": 2,
        "checkpoint.output_dir": str(out),
        "checkpoint.every": "none",
        "schedule.max_steps": 1,
        "lora.r": 4,
    }
    return Recipe(method="pointwise").changed(values | changes)


@pytest.mark.parametrize("name", MODELS)
def test_a_new_head_is_said_and_an_old_one_is_kept(tmp_path, name):
    """The layers come from the checkpoint in either case; a pooler in the checkpoint is kept."""
    headed, told = save_encoder(tmp_path / "headed", name), []
    kept = load(tmp_path / "headed", say=told.append).state_dict()
    assert told == []
    assert all(torch.equal(weight, kept[path]) for path, weight in headed.state_dict().items())
    base = save_headless(tmp_path / "base", name)
    new = load(base, say=told.append).state_dict()
    (line,) = told
    said = line.removeprefix(f"{base} has no score head; initialized new weights at random: ").split(", ")
    differing = {
        path.rpartition(".")[0] for path in kept if path.endswith("weight") and not kept[path].equal(new[path])
    }
    assert set(said) == differing
    assert differing
    assert all(path.split(".")[0] in ("classifier", "pre_classifier") for path in differing)
    assert all(torch.equal(weight, new[path]) for path, weight in load(base).state_dict().items())  # by the seed


def test_poolers_and_prediction_heads_of_language_models_are_kept_or_new(tmp_path):
    """A BERT masked language model has no pooler; ModernBERT's prediction head is part of its classifier."""
    import transformers

    for name, new in (("Bert", "bert.pooler.dense, classifier"), ("ModernBert", "classifier")):
        save_encoder(tmp_path / name, name)
        config = transformers.AutoConfig.from_pretrained(tmp_path / name)
        language_model = getattr(transformers, f"{name}ForMaskedLM")(config)
        language_model.save_pretrained(tmp_path / name)
        told = []
        model = load(tmp_path / name, say=told.append)
        assert told[0].endswith(f"at random: {new}")
        if name == "ModernBert":
            assert torch.equal(model.head.dense.weight, language_model.head.dense.weight)


@pytest.mark.parametrize("name", MODELS)
def test_adapters_are_on_every_linear_layer_and_the_head_is_trained_whole(tmp_path, name):
    """Saved with the adapter for sequence classification, as PEFT and inference read it."""
    from torch import nn

    base = save_headless(tmp_path / "base", name)
    plain = load(base)
    parts = head_parts(plain)
    in_head = {path for path, _ in plain.named_modules() if path.split(".")[-1] in parts}
    assert in_head == HEADS.get(name, {"classifier"})
    linear = {p for p, m in plain.named_modules() if isinstance(m, nn.Linear) and not is_in_head(p, parts)}
    adapted = load(base, r=4, target_modules=("all-linear",))
    trained = [path.removeprefix("base_model.model.") for path, w in adapted.named_parameters() if w.requires_grad]
    assert {path.split(".lora_")[0] for path in trained if ".lora_" in path} == linear
    whole = {path.replace(".modules_to_save.default", "") for path in trained if ".lora_" not in path}
    assert whole == {path for path, _ in plain.named_parameters() if is_in_head(path, parts)}
    adapted.save_pretrained(tmp_path / "adapter")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert settings["task_type"] == "SEQ_CLS"
    assert set(settings["modules_to_save"]) - {"score"} == set(parts)  # PEFT names the usual heads by itself
    held = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert {path for path in whole if f"base_model.model.{path}" not in held} == set()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("classifier",), "'classifier' is already trained in full next to the adapters; leave it out"),
        (("pooler",), "'pooler' is already trained in full next to the adapters; leave it out"),
        (
            ("query", "dense"),
            "'dense' also matches bert.pooler.dense, which is trained in full next to the adapters; use "
            "attention.output.dense, intermediate.dense, output.dense",
        ),
        (("q_proj",), "'q_proj' is not a layer of this model; known: query, key, value, dense"),
    ],
)
def test_names_of_layers_are_those_of_the_encoder(tmp_path, names, message):
    """And no part of its head."""
    base = save_headless(tmp_path / "base", "Bert")
    with pytest.raises(ConfigError) as caught:
        load(base, r=4, target_modules=names)
    assert message in str(caught.value)
    adapted = load(base, r=4, target_modules=("query", "output.dense"))
    paths = [path for path, _ in adapted.named_parameters() if "lora_A" in path]
    assert len(paths) == 3 * 3  # of three layers: query, attention.output.dense, output.dense


def brute_force_step(base, out, *, rate, epsilon):
    """Return the loss of all groups, with each pair run alone, and the model after one AdamW step, in plain
    transformers."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(base, dtype=torch.float32).train()
    tokenizer = AutoTokenizer.from_pretrained(base)
    lines = (out.parent / "p.jsonl").read_text(encoding="utf-8").splitlines()
    losses = []
    for record in map(json.loads, lines):
        texts = [passage["text"] for passage in (*record["positive_passages"], *record["negative_passages"])]
        cut = {"truncation": "only_second", "max_length": POSITIONS, "return_tensors": "pt"}
        pairs = (tokenizer(record["query"], text, **cut) for text in texts)
        scores = torch.stack([model(**pair).logits[0, 0] for pair in pairs])
        losses.append(-torch.log(scores[0].exp() / scores.exp().sum()))
    loss = sum(losses) / len(losses)
    loss.backward()
    torch.optim.AdamW(model.parameters(), lr=rate, eps=epsilon, weight_decay=0.0).step()
    return loss.item(), model.state_dict()


@pytest.mark.parametrize("name", ["Bert", "Roberta", "ModernBert", "DebertaV2"])
def test_one_step_is_that_of_plain_transformers(tmp_path, name):
    """Loss and every weight, with padding, masks, token types, accumulation and the Trainer."""
    save_encoder(tmp_path / "base", name, **STILL)
    rate, epsilon = 1e-2, 1e-3  # large enough that the first step follows the gradient and not its sign alone
    changes = {
        "data.group_size": 7,  # all passages of a record
        "batch.accumulation": 2,
        "optim.learning_rate": rate,
        "optim.adam_epsilon": epsilon,
        "optim.max_grad_norm": 0.0,
        "schedule.lr_scheduler": "constant",
    }
    result = train(recipe_for(tmp_path / "base", tmp_path / "out", **changes))
    loss, weights = brute_force_step(tmp_path / "base", tmp_path / "out", rate=rate, epsilon=epsilon)
    assert result.loss == pytest.approx(loss, abs=1e-5)
    found = load_file(tmp_path / "out" / "model.safetensors")
    before = load_file(tmp_path / "base" / "model.safetensors")
    assert found.keys() == before.keys()
    for path, weight in found.items():
        torch.testing.assert_close(weight, weights[path], atol=2e-5, rtol=1e-4, msg=lambda m, n=path: f"{n}: {m}")
    moved = [path for path in found if not found[path].equal(before[path])]
    assert any("classifier" in path for path in moved)
    assert any("layer" in path for path in moved)


@pytest.mark.parametrize("lora", [{}, ADAPTERS], ids=["full", "lora"])
@pytest.mark.parametrize("name", ["Bert", "ModernBert", "DebertaV2", "Electra"])
def test_gradient_checkpointing_changes_no_gradient(tmp_path, name, lora):
    """Also with frozen embeddings."""
    save_encoder(tmp_path, name, **STILL)
    ids = torch.arange(5, 21).view(2, 8)
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    found = []
    for recomputes in (False, True):
        model = load(tmp_path, **lora).train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if recomputes:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model(input_ids=ids, attention_mask=mask)["scores"].sum().backward()
        found.append({path: weight.grad for path, weight in model.named_parameters() if weight.grad is not None})
    assert found[0].keys() == found[1].keys() != set()
    for path, gradient in found[0].items():
        torch.testing.assert_close(found[1][path], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NOT_RECOMPUTED)
def test_gradient_checkpointing_that_a_model_lacks_is_one_line(tmp_path, name):
    """transformers would raise an error from within the loop."""
    save_encoder(tmp_path / "base", name)
    with pytest.raises(ConfigError, match=rf"gradient_checkpointing: transformers' {name}\w+ does not support it"):
        train(recipe_for(tmp_path / "base", tmp_path / "out", **{"batch.gradient_checkpointing": True}))


def test_a_toy_set_is_learnt_by_heart(tmp_path):
    """Within seconds, the positives of all groups rank first, and the best model is kept."""
    base = save_headless(tmp_path / "base", "Bert", initializer_range=0.1, **STILL)
    changes = {
        "optim.learning_rate": 3e-3,
        "schedule.max_steps": 40,
        "schedule.lr_scheduler": "constant",
        "batch.per_device": 4,
        "evaluation.every": "20",
        "evaluation.per_device": 4,
    }
    recipe = recipe_for(base, tmp_path / "out", **changes)
    result = train(recipe.changed({"data.eval": recipe.data.train}))
    assert result.best is not None
    assert (result.best.metric, result.best.value) == ("ndcg@10", pytest.approx(1.0))
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[0] > 1.0
    assert losses[-1] < 0.05


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path, lora):
    """Bit-identical, with dropout and shuffling."""
    base = save_headless(tmp_path / "base", "Roberta")
    changes = {"schedule.max_steps": 4, "lora.enabled": lora, "optim.learning_rate": 1e-3}
    whole = recipe_for(base, tmp_path / "whole", **changes, **{"checkpoint.every": "2"})
    train(whole)
    resumed = whole.changed({"checkpoint.output_dir": str(tmp_path / "again")})
    told = []
    train(resumed, resume_from=str(tmp_path / "whole" / "step_2"), say=told.append)
    assert not any("new weights" in line for line in told)
    file = "adapter_model.safetensors" if lora else "model.safetensors"
    expected, found = (load_file(tmp_path / folder / file) for folder in ("whole", "again"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[path], weight) for path, weight in expected.items())


def test_training_goes_on_from_an_adapter_with_its_head(tmp_path):
    """Adapters and head come from the folder, whatever was initialized."""
    base = save_headless(tmp_path / "base", "Bert")
    lora = {"r": 4, "target_modules": ("all-linear",)}
    begun = load(base, **lora)
    with torch.no_grad():
        for number, weight in enumerate(w for w in begun.parameters() if w.requires_grad):
            weight.fill_(0.01 * (number + 1))
    begun.save_pretrained(tmp_path / "adapter")
    again = dict(load(base, **lora, start_from=str(tmp_path / "adapter")).named_parameters())
    assert all(torch.equal(again[path], weight) for path, weight in begun.named_parameters() if weight.requires_grad)


def test_the_command_needs_a_model_and_data(tmp_path):
    """In the default precision, bf16, with LoRA, then merged."""
    from click.testing import CliRunner

    from rankllm_train.cli import cli

    base = save_headless(tmp_path / "base", "ModernBert")
    records = write_records(tmp_path / "p.jsonl", [pointwise_record(i, n_negatives=15) for i in range(2)])
    arguments = ["--model-name-or-path", base, "--train-dataset-path", records, "--output-dir", tmp_path / "out"]
    done = CliRunner().invoke(cli, ["pointwise", *map(str, arguments), "--lora", "--num-train-epochs", "1"])
    assert done.exit_code == 0, done.output
    assert "new weights at random: classifier" in done.stderr
    settings = json.loads((tmp_path / "out" / "adapter_config.json").read_text(encoding="utf-8"))
    assert set(settings["target_modules"]) == {"attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"}
    weights = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    merge(tmp_path / "out", tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "config.json").read_text("utf-8"))["architectures"] == [
        "ModernBertForSequenceClassification"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt.head": "yes-no"}, "prompt.head yes-no: .* is an encoder .*no next token to read; leave out --head"),
        ({"prompt.template": "rankllama"}, "prompt.template rankllama: .* use --prompt-template-path pair"),
        ({"prompt.template": "yes_no"}, "prompt.template yes_no: .* use --prompt-template-path pair"),
        ({"prompt.bos": "double"}, "prompt.bos double: .* is an encoder .*; leave out --bos"),
        ({"prompt.append_eos": True}, "prompt.append_eos: .* is an encoder .*; leave out --append-eos"),
        (
            {"prompt.instruction": "be strict"},
            "prompt.instruction has no effect: template pair has no {instruction} placeholder",
        ),
        ({"prompt.query_tokens": 96}, "pairs of 96 [+] 96 tokens: .* has 96 positions; use a smaller --q-max-len or"),
        ({"prompt.passage_tokens": 97}, "pairs of 48 [+] 97 tokens: .* has 96 positions; use a smaller --q-max-len or"),
        ({"batch.by_length": True, "batch.accumulation": 2}, "batch.by_length: applies to listwise records only"),
        ({"method": "listwise", "objective.name": ""}, "train listwise: .* is an encoder .*; use train pointwise"),
        (
            {"model.attn_implementation": "flash_attention_2"},
            "flash_attention_2 needs a CUDA GPU, but none is available",
        ),
    ],
)
def test_what_makes_no_sense_for_an_encoder_is_one_line(tmp_path, changes, message):
    """Before weights are read; valid values are kept."""
    base = save_headless(tmp_path / "base", "Bert")
    with pytest.raises(RankLLMError, match=message) as error:
        train(recipe_for(base, tmp_path / "out", **changes))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_an_attention_that_the_encoder_lacks_is_one_line(tmp_path):
    """transformers implements DeBERTa's attention itself."""
    save_encoder(tmp_path, "DebertaV2")
    with pytest.raises(ConfigError, match=r"model.attn_implementation: sdpa: .*; use auto") as error:
        load(tmp_path, attention="sdpa")
    assert "\n" not in str(error.value)
    load(tmp_path, attention="eager")


def test_heads_that_give_no_one_score_are_refused(tmp_path):
    """Several labels, modules next to the model, and a declared head that is missing."""
    save_encoder(tmp_path / "three", "Roberta", num_labels=3)
    with pytest.raises(ContractError, match="its head has 3 labels, expected 1 score per pair; start from the model"):
        train(recipe_for(tmp_path / "three", tmp_path / "out"))
    save_modular(tmp_path / "modules")
    with pytest.raises(ContractError, match=r"stores its score head as modules .*, which cannot be trained"):
        train(recipe_for(tmp_path / "modules", tmp_path / "out"))
    save_encoder(tmp_path / "lost", "Bert")
    drop_weights(tmp_path / "lost" / "model.safetensors", "classifier")
    with pytest.raises(ContractError, match=r"lacks 2 of the model's weights, such as classifier.bias"):
        train(recipe_for(tmp_path / "lost", tmp_path / "out"))


def test_a_damaged_base_is_one_line(tmp_path):
    """Missing layers would be random, and scores that are not finite teach nothing."""
    base = save_headless(tmp_path / "base", "Electra")
    drop_weights(base / "model.safetensors", "electra.encoder.layer.1.attention")
    with pytest.raises(ContractError, match=r"lacks \d+ of the model's weights, such as electra.encoder.layer.1"):
        load(base)
    model = save_encoder(tmp_path / "nan", "Bert")
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight.fill_(float("nan"))
    model.save_pretrained(tmp_path / "nan")
    with pytest.raises(ContractError, match="the weights give scores that are not finite; copy them again"):
        load(tmp_path / "nan")


def test_an_encoder_that_rerank_does_not_run_is_not_trained_either(tmp_path):
    """The message names the supported ones."""
    from transformers import ErnieConfig, ErnieModel

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ErnieModel(ErnieConfig(vocab_size=50, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(ContractError, match=r"ErnieForSequenceClassification has no score layer .*albert, bert, "):
        load(tmp_path)


def test_a_long_query_leaves_no_room_is_a_bad_record(tmp_path):
    """Only if it does: shorter queries are trained on, with a tokenizer that allows few tokens."""
    base = save_headless(tmp_path / "base", "Bert")
    change_json(base / "tokenizer_config.json", model_max_length=40)
    train(recipe_for(base, tmp_path / "out"))
    long = pointwise_record(9) | {"query": "llama " * 60}
    records = write_records(tmp_path / "long.jsonl", [pointwise_record(1), long])
    with pytest.raises(RankLLMError, match=r"long.jsonl:2: query 'q9': the prompts do not contain the passages"):
        train(recipe_for(base, tmp_path / "other", **{"data.train": records}))


@pytest.mark.parametrize("lora", [False, True], ids=["full", "merged"])
def test_the_norms_of_an_old_bert_are_saved_by_their_present_names(tmp_path, lora):
    """Published BERT models use TensorFlow's names, which transformers would write again."""
    base = save_headless(tmp_path / "base", "Bert")
    expected = {path for path in load(base).state_dict() if "position_ids" not in path}
    file = base / "model.safetensors"
    old = {
        path.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): weight
        for path, weight in load_file(file).items()
    }
    assert any(path.endswith("gamma") for path in old)
    save_file(old, file, metadata={"format": "pt"})
    out = train(recipe_for(base, tmp_path / "out", **{"lora.enabled": lora})).output_dir
    if lora:
        out = merge(out, tmp_path / "merged")
    assert load_file(out / "model.safetensors").keys() == expected


def test_merging_misses_a_head_that_nobody_has(tmp_path):
    """An adapter whose head was lost, on a base that never had one."""
    base = save_headless(tmp_path / "base", "Bert")
    out = train(recipe_for(base, tmp_path / "out", **{"lora.enabled": True})).output_dir
    (out / MANIFEST_NAME).unlink()
    drop_weights(out / "adapter_model.safetensors", "base_model.model.classifier")
    with pytest.raises(ContractError, match=r"contains no classifier.bias, and neither does its base .* random"):
        merge(out, tmp_path / "merged")


def test_the_tokenizers_of_the_families_are_those_that_are_saved(tmp_path):
    """The checkpoint's tokenizer produces the same pairs as the base's."""
    from transformers import AutoTokenizer

    base = save_headless(tmp_path / "base", "XLMRoberta")
    out = train(recipe_for(base, tmp_path / "out")).output_dir
    pair = ("How long do llamas live?", "They live long.")
    assert AutoTokenizer.from_pretrained(out)(*pair) == make_tokenizer("unigram")(*pair)

"""LoRA adapters over encoders, as written by PEFT: merged, they give the unmerged scores, or a one-line error."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from encoder_models import (  # noqa: E402
    MODELS,
    POSITIONS,
    TEXTS,
    drop_weights,
    make_tokenizer,
    save_encoder,
    save_headless,
    save_modular,
)
from ranking_server import write_jsonl  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from tiny_models import change_json  # noqa: E402

from rankllm_core.errors import ConfigError, ContractError, RankLLMError  # noqa: E402
from rankllm_infer import RerankOptions, load_reranker, make_request, plan_reranking  # noqa: E402

QUERY = "How long do llamas live?"
PASSAGES = (*TEXTS, "a", "They live long. " * 4)


def save_adapter(folder, base, *, labels=1, task="SEQ_CLS", whole=None):
    """A LoRA adapter on all linear layers, without zeros. whole: modules to save. Returns the unmerged model."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels, dtype=torch.float32)
    config = LoraConfig(
        task_type=task,
        r=4,
        lora_alpha=8,
        target_modules="all-linear",
        init_lora_weights=False,
        modules_to_save=whole,
        exclude_modules=r".*(classifier|pooler|head).*",
    )
    adapted = get_peft_model(model, config)
    adapted.save_pretrained(folder)
    return adapted.eval()


def oracle(name, model):
    """PEFT's output for each pair individually, without merging."""
    tokenizer = make_tokenizer(MODELS[name][0])
    with torch.inference_mode():
        pairs = (tokenizer([(QUERY, p)], truncation=True, max_length=POSITIONS, return_tensors="pt") for p in PASSAGES)
        # DistilBERT's family has no token types, its tokenizer here does.
        unread = ("token_type_ids",) if name == "DistilBert" else ()
        return [model(**{k: v for k, v in pair.items() if k not in unread}).logits[0, 0].item() for pair in pairs]


def scores(folder, **options):
    """rankllm's scores in passage order."""
    with load_reranker(folder, RerankOptions(device="cpu", dtype="float32", **options)) as reranker:
        (result,) = reranker.rerank([make_request(QUERY, PASSAGES)])
    found = {candidate.docid: candidate.model_score for candidate in result.candidates}
    return [found[docid] for docid in sorted(found, key=int)]


@pytest.mark.parametrize("name", MODELS)
def test_an_adapter_gives_the_scores_that_it_has_unmerged(tmp_path, name):
    """Over a base without a head, without card or options: prompt, head and limits follow from the two folders."""
    base = save_headless(tmp_path / "base", name)
    adapted = save_adapter(tmp_path / "adapter", base)
    expected = oracle(name, adapted)
    with adapted.disable_adapter():
        assert oracle(name, adapted) != pytest.approx(expected, abs=1e-2)
    assert scores(tmp_path / "adapter") == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("task", ["SEQ_CLS", None])
def test_an_adapter_over_a_cross_encoder_is_merged_too(tmp_path, task):
    """With its own head or, if PEFT was given no task, with that of its base."""
    save_encoder(base := tmp_path / "base", "Bert")
    adapted = save_adapter(tmp_path / "adapter", base, task=task)
    held = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert ("base_model.model.classifier.weight" in held) == (task is not None)
    assert scores(tmp_path / "adapter") == pytest.approx(oracle("Bert", adapted), abs=1e-5)


def test_a_head_that_the_settings_do_not_name_is_read(tmp_path):
    """Old versions of PEFT wrote the head's tensors without modules_to_save."""
    base = save_headless(tmp_path / "base", "Roberta")
    adapted = save_adapter(tmp_path / "adapter", base, whole=["classifier"])
    change_json(tmp_path / "adapter" / "adapter_config.json", modules_to_save=None)
    assert scores(tmp_path / "adapter") == pytest.approx(oracle("Roberta", adapted), abs=1e-5)


def test_a_pooler_is_brought_by_the_adapter_or_missed(tmp_path):
    """BERT as a masked language model has none: PEFT saves it if told to."""
    base = save_headless(tmp_path / "base", "Bert")
    drop_weights(base / "model.safetensors", "bert.pooler")
    adapted = save_adapter(tmp_path / "adapter", base, whole=["classifier", "pooler"])
    assert scores(tmp_path / "adapter") == pytest.approx(oracle("Bert", adapted), abs=1e-5)
    save_adapter(tmp_path / "without", base)
    with pytest.raises(
        ContractError, match=r"neither the adapter nor its base contains bert.pooler.dense.bias; .*'pooler'"
    ):
        load_reranker(tmp_path / "without", RerankOptions(device="cpu"))


def test_the_command_and_the_preview_need_no_flags(tmp_path, rankllm):
    """The preview shows the scored pair and downloads no weights."""
    base = save_headless(tmp_path / "base", "Bert")
    adapted = save_adapter(tmp_path / "adapter", base)
    candidates = [{"docid": f"d{number}", "doc": {"text": text}} for number, text in enumerate(PASSAGES)]
    requests = write_jsonl(tmp_path / "r.jsonl", {"query": {"qid": "q", "text": QUERY}, "candidates": candidates})
    model = ("--model-path", tmp_path / "adapter", "--requests", requests)
    done = rankllm("rerank", *model, "--output", tmp_path / "out.trec", "--dtype", "float32")
    assert done.code == 0, done.err
    scored = sorted(zip(oracle("Bert", adapted), candidates, strict=True), key=lambda pair: -pair[0])
    ranked = [line.split()[2] for line in (tmp_path / "out.trec").read_text(encoding="utf-8").splitlines()]
    assert ranked == [candidate["docid"] for _, candidate in scored]
    (base / "model.safetensors").unlink()
    shown = rankllm("prompts", "render", *model)
    assert shown.out.count("[SEP]") == 2, shown


def test_an_adapter_without_a_head_over_a_base_without_one_is_refused(tmp_path):
    """Its scores would be random."""
    base = save_headless(tmp_path / "base", "Roberta")
    save_adapter(tmp_path / "adapter", base)
    drop_weights(tmp_path / "adapter" / "adapter_model.safetensors", "base_model.model.classifier.out_proj")
    with pytest.raises(ContractError, match=r"contains classifier.out_proj.bias; .* random. .*'classifier'") as error:
        load_reranker(tmp_path / "adapter", RerankOptions(device="cpu"))
    assert "\n" not in str(error.value)


def test_an_adapter_of_two_labels_is_refused(tmp_path):
    """It has no single score to sort by."""
    base = save_headless(tmp_path / "base", "Electra")
    save_adapter(tmp_path / "adapter", base, labels=2)
    with pytest.raises(ContractError, match="its head returns 2 labels per passage, expected one score"):
        load_reranker(tmp_path / "adapter", RerankOptions(device="cpu"))


@pytest.mark.parametrize(
    ("other", "options", "message"),
    [
        ("Roberta", {}, "trained on another base model"),
        ("Bert", {"num_hidden_layers": 2}, "trained on another base model: only the adapter has"),
        ("Bert", {"hidden_size": 48}, "trained on another base model"),
    ],
)
def test_an_adapter_does_not_go_on_another_encoder(tmp_path, other, options, message):
    """A different family, depth or width."""
    save_encoder(tmp_path / "base", "Bert")
    save_adapter(tmp_path / "adapter", tmp_path / "base")
    save_encoder(tmp_path / "other", other, **options)
    with pytest.raises(ContractError, match=message) as error:
        load_reranker(tmp_path / "adapter", RerankOptions(device="cpu", base_model=str(tmp_path / "other")))
    assert "\n" not in str(error.value)


def test_a_base_that_lacks_layers_is_refused(tmp_path):
    """The adapter brings a head, but no layers."""
    save_encoder(base := tmp_path / "base", "Bert")
    save_adapter(tmp_path / "adapter", base)
    drop_weights(base / "model.safetensors", "bert.encoder.layer.1.output.dense")
    with pytest.raises(ContractError, match=r"base: no weights of its layers \(bert.encoder.layer.1.output.dense.bias"):
        load_reranker(tmp_path / "adapter", RerankOptions(device="cpu"))


def test_a_head_of_modules_takes_no_adapter(tmp_path):
    """Ettin rerankers keep theirs outside the model that PEFT adapts."""
    save_modular(tmp_path / "base")
    save_encoder(tmp_path / "plain", "ModernBert")
    save_adapter(tmp_path / "adapter", tmp_path / "plain")
    options = RerankOptions(base_model=str(tmp_path / "base"))
    with pytest.raises(ContractError, match=r"stores its score head as modules \(modules.json\); adapters are not"):
        plan_reranking(tmp_path / "adapter", options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"template": "yes_no"}, "template yes_no: .* is an encoder.*; use --prompt-template-path pair"),
        ({"compile": True}, "--compile: .* is an encoder .*; leave it out"),
        ({"method": "listwise"}, "--method listwise: .* is an encoder .*; leave it out"),
    ],
)
def test_what_an_encoder_cannot_do_is_said_of_its_adapter_too(tmp_path, options, message):
    """Before weights are read."""
    base = save_headless(tmp_path / "base", "Bert")
    save_adapter(tmp_path / "adapter", base)
    (base / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=message) as error:
        plan_reranking(tmp_path / "adapter", RerankOptions(**options))
    assert "\n" not in str(error.value)


def test_a_damaged_adapter_is_one_line(tmp_path):
    """Truncated weights."""
    save_encoder(tmp_path / "base", "Bert")
    save_adapter(tmp_path / "adapter", tmp_path / "base")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RankLLMError) as error:
        load_reranker(tmp_path / "adapter", RerankOptions(device="cpu"))
    assert "\n" not in str(error.value)

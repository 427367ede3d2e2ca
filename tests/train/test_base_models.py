"""The base model: its recorded name, and the errors when it cannot be loaded."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

from tiny_models import change_json, save_causal, save_classifier  # noqa: E402

from rankllm_core.card import ListwiseCard  # noqa: E402
from rankllm_core.errors import RankLLMError  # noqa: E402
from rankllm_core.prompts.template import load_template  # noqa: E402
from rankllm_train.artifacts.model_page import model_page  # noqa: E402
from rankllm_train.methods.training_data import base_of_adapters  # noqa: E402
from rankllm_train.models.base_names import base_name, findable_base  # noqa: E402
from rankllm_train.models.loading import load_model, load_tokenizer  # noqa: E402
from rankllm_train.recipe.recipe import Recipe  # noqa: E402
from rankllm_train.recipe.sections import LoraSection, ModelSection  # noqa: E402


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, smollm2_tokenizer):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_causal(folder, smollm2_tokenizer)
    return folder


def load(folder, *, kind="causal", lora=False):
    section = ModelSection(name_or_path=str(folder), precision="fp32")
    return load_model(section, kind=kind, lora=LoraSection(enabled=lora, r=2), seed=0)


def test_a_base_is_called_by_its_name_and_found_by_its_path(tmp_path, monkeypatch):
    """The card contains a name that is meaningful elsewhere, adapter_config.json one that this machine finds."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "hub" / "models--owner--base-7b" / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "models")
    assert base_name("owner/base-7b") == findable_base("owner/base-7b") == "owner/base-7b"
    assert base_name(str(snapshot)) == findable_base(str(snapshot)) == "owner/base-7b"
    assert (base_name("mine"), findable_base("mine")) == ("mine", str(tmp_path / "models" / "mine"))
    assert (base_name("./mine/"), base_name("mine/.")) == ("mine", "mine")
    assert base_name(f"owner/base-7b@{commit}") == "owner/base-7b"


def test_an_adapters_card_and_page_hold_no_path_of_this_machine(tiny, tmp_path):
    """The page says how to specify the base elsewhere; adapter_config.json keeps the path for this machine."""
    changes = {"model.name_or_path": str(tiny), "lora.enabled": True, "data.train": "/data/me/lists.jsonl"}
    recipe = Recipe().changed(changes)
    assert base_of_adapters(recipe) == "tiny"
    assert base_of_adapters(recipe.changed({"lora.enabled": False})) is None
    card = ListwiseCard(template=load_template("rank_zephyr_alpha"), base_model="tiny")
    page = model_page(recipe, card)
    assert "The base model, tiny, is not in this folder." in page
    assert "on another machine, add `--base-model FOLDER_OR_NAME`" in page
    assert "| training data | lists.jsonl |" in page
    assert str(tiny.parent) not in page
    hub = model_page(recipe.changed({"model.name_or_path": "owner/base"}), card)
    assert "The base model, owner/base, is not in this folder. It is downloaded from the hub" in hub
    load(tiny, lora=True).save_pretrained(tmp_path / "adapter")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert settings["base_model_name_or_path"] == str(tiny)


def test_a_base_with_several_labels_is_no_scorer(tmp_path, smollm2_tokenizer):
    """A base with a single label keeps its score layer."""
    save_classifier(tmp_path / "two", smollm2_tokenizer, labels=2)
    with pytest.raises(RankLLMError, match="has a score layer with 2 labels, expected 1 score per pair"):
        load(tmp_path / "two", kind="sequence-classification")
    whole = save_classifier(tmp_path / "one", smollm2_tokenizer)
    assert torch.equal(load(tmp_path / "one", kind="sequence-classification").score.weight, whole.score.weight)


def damaged(folder, tiny, *, drop=(), write=None, **config):
    """Copy a model with files removed, overwritten, or with other settings."""
    folder.mkdir()
    for path in tiny.iterdir():
        if path.name not in drop:
            (folder / path.name).write_bytes(path.read_bytes())
    for name, content in (write or {}).items():
        (folder / name).write_bytes(content)
    if config:
        change_json(folder / "config.json", **config)
    return folder


@pytest.mark.parametrize(
    "damage",
    [
        {"drop": ["config.json"]},
        {"drop": ["model.safetensors"]},
        {"write": {"config.json": b"{"}},
        {"write": {"config.json": b"\xff\xfe{}"}},
        {"write": {"config.json": b"[]"}},
        {"write": {"model.safetensors": b""}},
        {"write": {"model.safetensors": b"\x10\0\0\0\0\0\0\0{}"}},
        {"write": {"model.safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"}},
        {"num_hidden_layers": 3},
        {"hidden_size": 64},
        {"hidden_size": "wide"},
        {"model_type": "no_such_model"},
    ],
    ids=str,
)
def test_a_damaged_folder_is_one_line(tiny, tmp_path, damage):
    """The error names the folder or the file."""
    folder = damaged(tmp_path / "damaged", tiny, **damage)
    with pytest.raises(RankLLMError) as caught:
        load(folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"version": "1.0"}', b"[]"])
def test_a_damaged_tokenizer_is_one_line(tiny, tmp_path, content):
    """Whatever the tokenizers library raises."""
    folder = damaged(tmp_path / "damaged", tiny, write={"tokenizer.json": content})
    with pytest.raises(RankLLMError) as caught:
        load_tokenizer(ModelSection(name_or_path=str(folder)))
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_tekken_file_does_not_replace_the_tokenizer(tiny, tmp_path, smollm2_tokenizer, monkeypatch):
    """With mistral_common installed, transformers would prefer it and return a tokenizer with another interface."""
    tokenization = pytest.importorskip("transformers.models.auto.tokenization_auto")
    mistral = pytest.importorskip("transformers.integrations.mistral.tokenizer")
    monkeypatch.setitem(tokenization.TOKENIZER_MAPPING_NAMES, "mistral", "MistralCommonBackend")
    monkeypatch.setattr(mistral, "resolve_mistral_format", lambda *arguments, **options: (True, None))
    folder = damaged(tmp_path / "mistral", tiny, write={"tekken.json": b"{}"}, model_type="mistral")
    change_json(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")
    tokenizer = load_tokenizer(ModelSection(name_or_path=str(folder)))
    assert tokenizer.backend_tokenizer.get_vocab_size() == len(smollm2_tokenizer)

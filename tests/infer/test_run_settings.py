"""What a run's results depend on: everything that decides them, and nothing that does not."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import fields, replace

import pytest
from ranking_fakes import make_request

from rankllm_core.card import ListwiseCard
from rankllm_core.template import load_template
from rankllm_infer.run_settings import InputDigest, difference, folder_identity, model_identity, run_settings
from rankllm_infer.settings import RerankOptions

CARD = ListwiseCard(template=load_template("rank_zephyr"))


@pytest.fixture
def model(tmp_path):
    """A folder with the files of a model; its weights are larger than what is read of them."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}', encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(bytes(8 << 20))
    return folder


def settings(model, card=CARD, **options):
    """The settings of a run with this model and these options."""
    return run_settings(str(model), RerankOptions(**options), card=card, requests="3 queries")


def test_a_copy_of_a_model_is_the_same_model(tmp_path, model):
    """Other dates, another folder, other notes beside it, and a run that was written into it."""
    before = model_identity(str(model))
    copied = tmp_path / "elsewhere" / "model"
    shutil.copytree(model, copied)
    os.utime(copied / "model.safetensors", (1, 1))
    (copied / "README.md").write_text("notes", encoding="utf-8")
    (copied / "run.txt").write_text("q1\td1\t1.0\n", encoding="utf-8")
    (copied / "out.trec.journal.jsonl").write_text("{}\n", encoding="utf-8")
    assert model_identity(str(copied)) == before
    assert model_identity(str(copied) + "/") == before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_changed_model_is_another_model(model, name):
    """Files of the same size: a changed letter, and weights that were trained on."""
    before = model_identity(str(model))
    size = (model / name).stat().st_size
    (model / name).write_bytes(b"\1" * size)
    assert (model / name).stat().st_size == size
    assert model_identity(str(model)) != before


def test_a_model_of_the_hub_is_known_by_its_revision(tmp_path):
    """Its weights may not be here yet."""
    folder = tmp_path / "models--owner--name" / "snapshots" / "0a1b2c"
    folder.mkdir(parents=True)
    assert folder_identity(folder) == "revision 0a1b2c"


def test_every_option_counts_unless_it_cannot_change_a_result(model):
    """Of all there are, now and later; those of the card count through the card."""
    base = RerankOptions(shuffle_candidates=True, num_passes=2)
    known = run_settings(str(model), base, card=CARD, requests="3 queries")
    values = {"seed": 5, "num_gpus": 2, "batch_size": 7, "batch_tokens": 9, "num_passes": 3, "top_k_candidates": 4}
    values |= {"pass_depth": 30, "variable_passages": False, "system_message": "Be fair.", "with_trace": True}
    for name, value in values.items():
        changed = run_settings(str(model), replace(base, **{name: value}), card=CARD, requests="3 queries")
        option = "--trace" if name == "with_trace" else "--" + name.replace("_", "-")
        was = "not set" if known[option] is None else json.dumps(known[option])
        assert difference(known, changed) == f"{option} was {was}, is {json.dumps(value)}"
    in_the_card = {"method", "template", "use_logits", "use_alpha", "context_size", "max_passage_words"}
    in_the_card |= {"window_size", "stride", "q_max_len", "p_max_len", "fuse_weight", "identifier_prior"}
    by_content = {"base_model", "base_url", "few_shot_file"}
    no_result = {"api_key", "timeout_s", "concurrency"}
    when_loaded = {"dtype", "device"}
    counted = {name.removeprefix("--").replace("-", "_") for name in known if name.startswith("--")} - {"trace"}
    counted = (counted - {"vllm_arg"}) | {"vllm_args"}
    assert counted | in_the_card | by_content | no_result | when_loaded | {"with_trace"} == {
        field.name for field in fields(RerankOptions)
    }


@pytest.mark.parametrize("change", [{"fuse_weight": 0.4}, {"identifier_prior": (0.5,) * 20}])
def test_what_a_card_no_longer_says_counts(model, change):
    """A run that was begun with it does not go on without."""
    old, new = (
        run_settings(str(model), RerankOptions(), card=card, requests="r") for card in (replace(CARD, **change), CARD)
    )
    (name,) = change
    assert difference(old, new).startswith(f"card {name} was ")
    assert set(old) == set(new)


def test_a_changed_card_or_template_counts(model):
    """Whichever option, file or checkpoint it comes from."""
    known = settings(model)
    assert difference(known, settings(model, replace(CARD, stride=5))) == "card window.stride was 10, is 5"
    template = replace(CARD.template, prefix=(CARD.template.prefix or "") + " Be brief.")
    assert difference(known, settings(model, replace(CARD, template=template))).startswith("card template.prefix was ")
    assert difference(known, settings(model)) == ""


def test_the_contents_of_a_few_shot_file_count(model, tmp_path):
    """Not its name."""
    known = {}
    for name, text in (("a", "[1]"), ("b", "[1]"), ("c", "[2]")):
        (tmp_path / name).write_text(text, encoding="utf-8")
        known[name] = settings(model, few_shot_file=str(tmp_path / name), num_few_shot_examples=1)
    assert difference(known["a"], known["b"]) == ""
    assert difference(known["a"], known["c"]).startswith("--few-shot-file was ")


def test_a_server_is_known_by_its_address_and_model_and_no_secret_is_kept():
    """The journal may be shown around."""
    options = RerankOptions(engine="openai", base_url="https://me:secret@host:8000/v1/", api_key="sk-123")
    known = run_settings("oracle", options, card=CARD, requests="3 queries")
    assert known["model"] == "oracle at https://host:8000/v1"
    assert "secret" not in json.dumps(known)
    assert "sk-123" not in json.dumps(known)


def test_an_adapters_base_counts(tmp_path, model):
    """Its files as well as the adapter's own."""
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"base_model_name_or_path": str(model), "task_type": "CAUSAL_LM"}
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    known = settings(adapter)
    (model / "model.safetensors").write_bytes(b"\1" * (8 << 20))
    assert difference(known, settings(adapter)).startswith('base model was "sha256 ')


@pytest.mark.parametrize(
    "change",
    [
        {"query": "another text"},
        {"score": 0.25},
        {"doc": {"text": "d0", "title": ""}},
        {"docid": "d9"},
    ],
)
def test_the_input_counts_with_every_letter(change):
    """Query, docid, score and text; and the order and number of queries."""
    first, second = make_request("q1", 3), make_request("q2", 2)
    assert digest(first, second) == digest(first, second)
    assert digest(first, second) != digest(second, first)
    assert digest(first, second) != digest(first)
    query = replace(first.query, text=change.get("query", first.query.text))
    field = {name: value for name, value in change.items() if name != "query"}
    changed = replace(first, query=query, candidates=(replace(first.candidates[0], **field), *first.candidates[1:]))
    assert digest(changed, second) != digest(first, second)


def digest(*requests):
    """The digest of some requests."""
    found = InputDigest()
    for request in requests:
        found.add(request)
    return str(found)

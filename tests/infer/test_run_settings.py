"""What a run's results depend on: everything that affects them, and nothing else."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import struct
from dataclasses import MISSING, fields, replace

import pytest
from ranking_fakes import make_request

from rankllm_core.card import ListwiseCard, PointwiseCard
from rankllm_core.prompts.template import ListwiseTemplate, PointwiseTemplate, load_template
from rankllm_infer.checkpoints.model_files import find_folder
from rankllm_infer.checkpoints.model_identity import folder_identity, model_identity
from rankllm_infer.engines.scripted import ScriptedEngine
from rankllm_infer.jobs.fingerprint import (
    LOADED_SETTINGS,
    InputDigest,
    changed_names,
    difference,
    loaded_settings,
    run_settings,
)
from rankllm_infer.options import RerankOptions
from rankllm_infer.plan import plan_reranking

CARD = ListwiseCard(template=load_template("rank_zephyr"))


@pytest.fixture
def model(tmp_path):
    """A folder with the files of a model; its weights are larger than the part that is hashed."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}', encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(bytes(8 << 20))
    return folder


def plan_with(model, options, card=CARD):
    """The plan for a model and options with this card."""
    plan = plan_reranking(str(model), options)
    return replace(plan, card=replace(plan.card, card=card))


def settings(model, card=CARD, **options):
    """Settings of a run with this model and these options."""
    return run_settings(plan_with(model, RerankOptions(**options), card), requests="3 queries")


def test_a_copy_of_a_model_is_the_same_model(tmp_path, model):
    """Different dates, another folder, additional notes, and a run written into it."""
    before = model_identity(find_folder(str(model)))
    copied = tmp_path / "elsewhere" / "model"
    shutil.copytree(model, copied)
    os.utime(copied / "model.safetensors", (1, 1))
    (copied / "README.md").write_text("notes", encoding="utf-8")
    (copied / "run.txt").write_text("q1\td1\t1.0\n", encoding="utf-8")
    (copied / "out.trec.journal.jsonl").write_text("{}\n", encoding="utf-8")
    assert model_identity(find_folder(str(copied))) == before
    assert model_identity(find_folder(str(copied) + "/")) == before


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_changed_model_is_another_model(model, name):
    """Files of the same size: one changed character, and weights after further training."""
    before = folder_identity(model)
    size = (model / name).stat().st_size
    (model / name).write_bytes(b"\1" * size)
    assert (model / name).stat().st_size == size
    assert folder_identity(model) != before


def test_a_model_of_the_hub_is_known_by_its_revision(tmp_path):
    """Its weights may not have been downloaded yet."""
    folder = tmp_path / "models--owner--name" / "snapshots" / ("0a1b2c3d" * 5)
    folder.mkdir(parents=True)
    assert folder_identity(folder) == f"revision {'0a1b2c3d' * 5}"


def test_every_option_counts_unless_it_cannot_change_a_result(model):
    """For all present and future options; those of the card count through the card."""
    base = RerankOptions(shuffle_candidates=True, num_passes=2)
    known = run_settings(plan_with(model, base), requests="3 queries")
    values = {"seed": 5, "num_gpus": 2, "batch_size": 7, "batch_tokens": 9, "num_passes": 3, "top_k_candidates": 4}
    values |= {"pass_depth": 30, "variable_passages": False, "system_message": "Be fair.", "with_trace": True}
    for name, value in values.items():
        changed = run_settings(plan_with(model, replace(base, **{name: value})), requests="3 queries")
        option = "--trace" if name == "with_trace" else "--" + name.replace("_", "-")
        was = "not set" if known[option] is None else json.dumps(known[option])
        assert difference(known, changed) == f"{option} was {was}, is {json.dumps(value)}"
    in_the_card = {"method", "template", "use_logits", "use_alpha", "context_size", "max_passage_words"}
    in_the_card |= {"window_size", "stride", "q_max_len", "p_max_len", "fuse_weight", "identifier_prior"}
    by_content = {"base_model", "base_url", "few_shot_file", "revision"}
    no_result = {"api_key", "timeout_s", "concurrency", "verify"}
    when_loaded = {"dtype", "device"}
    counted = {name.removeprefix("--").replace("-", "_") for name in known if name.startswith("--")} - {"trace"}
    counted = (counted - {"vllm_arg"}) | {"vllm_args"}
    assert counted | in_the_card | by_content | no_result | when_loaded | {"with_trace"} == {
        field.name for field in fields(RerankOptions)
    }


@pytest.mark.parametrize("change", [{"fuse_weight": 0.4}, {"identifier_prior": (0.5,) * 20}])
def test_what_a_card_no_longer_says_counts(model, change):
    """A run started with it is not resumed without it."""
    old, new = (
        run_settings(plan_with(model, RerankOptions(), card), requests="r") for card in (replace(CARD, **change), CARD)
    )
    (name,) = change
    assert difference(old, new).startswith(f"card {name} was ")
    assert set(old) == set(new)


def test_a_changed_card_or_template_counts(model):
    """From any option, file or checkpoint."""
    known = settings(model)
    assert difference(known, settings(model, replace(CARD, stride=5))) == "card window.stride was 10, is 5"
    template = replace(CARD.template, prefix=(CARD.template.prefix or "") + " Be brief.")
    assert difference(known, settings(model, replace(CARD, template=template))).startswith("card template.prefix was ")
    assert difference(known, settings(model)) == ""


def shots(n):
    """A file of n examples without turns."""
    return json.dumps([{"conversations": []}] * n)


def test_the_contents_of_a_few_shot_file_count(model, tmp_path):
    """Its name does not."""
    known = {}
    for name, text in (("a", shots(1)), ("b", shots(1)), ("c", shots(2))):
        (tmp_path / name).write_text(text, encoding="utf-8")
        known[name] = settings(model, few_shot_file=str(tmp_path / name), num_few_shot_examples=1)
    assert difference(known["a"], known["b"]) == ""
    assert difference(known["a"], known["c"]).startswith("--few-shot-file was ")


def test_a_server_is_known_by_its_address_and_model_and_no_secret_is_kept():
    """Journals may be shared."""
    options = RerankOptions(engine="openai", base_url="https://me:secret@host:8000/v1/", api_key="sk-123")
    known = run_settings(plan_with("oracle", options), requests="3 queries")
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
    """Digest of some requests."""
    found = InputDigest()
    for request in requests:
        found.add(request)
    return str(found)


LISTWISE = ListwiseTemplate(
    name="t",
    method="multiturn_listwise",
    body="[{rank}] {candidate}",
    prefix="Rank {num} for {query}.",
    suffix="Now, {query}?",
    prefix_assistant="Yes.",
    body_assistant="Got {rank}.",
    system_message="Be fair.",
    chat_layout="vicuna",
    identifiers="numeric",
    answer="passages",
    reasoning=True,
)
POINTWISE = PointwiseTemplate(
    name="p",
    layout="yes-no",
    body="{query} {document} {instruction}",
    query="q: {query}",
    instructed_query="q: {query} {instruction}",
    passage="p: {title} {text}",
    system_message="Be fair.",
    instruction="Judge.",
    chat_layout="chatml",
    answer_prefix="Answer:",
    positive="relevant",
    negative="irrelevant",
    message_roles="reranker",
)
CARDS = {
    "listwise": ListwiseCard(template=LISTWISE, base_model="b", identifier_prior=(0.5,) * 20, fuse_weight=0.4),
    "pointwise": PointwiseCard(
        template=POINTWISE, head="yes-no", base_model="b", probability_scale=2.0, fuse_weight=0.4
    ),
}
CHANGES = {
    "listwise": {"identifiers": "alpha", "answer": "first-token", "bos": "double", "context_tokens": 9},
    "pointwise": {"head": "sequence-classification", "bos": "double", "append_eos": True, "query_tokens": 9},
}
CHANGES["listwise"] |= {"max_passage_words": 9, "window_size": 19, "stride": 9, "identifier_prior": (0.25,) * 20}
CHANGES["pointwise"] |= {"passage_tokens": 9, "probability_scale": None, "attention": "causal", "pooling": "mean"}


@pytest.mark.parametrize("kind", ["listwise", "pointwise"])
def test_every_field_of_a_card_counts(model, kind):
    """Changed, or removed if optional; including fields added in the future."""
    card = CARDS[kind]
    known = settings(model, card)
    changes = CHANGES[kind] | {"base_model": None, "fuse_weight": 0.0, "template": replace(card.template, name="other")}
    assert set(changes) | {"probe"} == {field.name for field in fields(card)}  # a probe changes no result
    for name, value in changes.items():
        values = {field.name: getattr(card, field.name) for field in fields(card)} | {name: value}
        changed = object.__new__(type(card))
        for field, given in values.items():  # also what no card may hold: this is about what is compared
            object.__setattr__(changed, field, given)
        assert changed_names(known, settings(model, changed)), name
        assert changed_names(settings(model, changed), known), name


@pytest.mark.parametrize("kind", ["listwise", "pointwise"])
def test_every_field_of_a_template_counts(model, kind):
    """Changed or removed: a run with one prompt is never resumed with another."""
    card = CARDS[kind]
    known = settings(model, card)
    for field in fields(card.template):
        for value in {"other", "other" if field.default is MISSING else field.default}:
            template = object.__new__(type(card.template))
            for name in (given.name for given in fields(card.template)):
                object.__setattr__(template, name, getattr(card.template, name))
            object.__setattr__(template, field.name, value)
            changed = object.__new__(type(card))
            for name in (given.name for given in fields(card)):
                object.__setattr__(changed, name, getattr(card, name))
            object.__setattr__(changed, "template", template)
            assert changed_names(known, settings(model, changed)), (field.name, value)


@pytest.mark.parametrize(
    ("engine", "packages"),
    [
        ("transformers", {"torch", "transformers", "tokenizers", "jinja2"}),
        ("vllm", {"vllm", "torch", "transformers", "tokenizers", "jinja2"}),
        ("openai", set()),
    ],
)
def test_the_packages_that_decide_the_numbers_count(model, monkeypatch, engine, packages):
    """For a local engine its libraries, for a server those that render prompts and parse answers."""
    options = RerankOptions(engine=engine, base_url="http://h:1/v1" if engine == "openai" else None)

    def known():
        return run_settings(plan_with(model, options), requests="r")

    before = known()
    versions = {name.removeprefix("version of ") for name in before if name.startswith("version of ")}
    assert versions == packages | {"rankllm-core", "ftfy"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "9.9.9")
    assert set(changed_names(before, known())) == {f"version of {name}" for name in versions}


def test_peft_counts_for_an_adapter_alone(tmp_path, model):
    """It merges the adapter's weights."""
    assert "version of peft" not in settings(model)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}), encoding="utf-8")
    assert settings(adapter)["version of peft"] == importlib.metadata.version("peft")


def test_variables_that_change_kernels_count(model):
    """Set, changed or removed; other variables do not count, and a server's are unknown."""
    plan = plan_with(model, RerankOptions())
    plain = run_settings(plan, requests="r", environment={"HOME": "/x", "SECRET": "s"})
    changed = run_settings(plan, requests="r", environment={"ATEN_CPU_CAPABILITY": "default"})
    assert "SECRET" not in json.dumps(plain)
    assert difference(plain, changed) == 'ATEN_CPU_CAPABILITY was not set, is "default"'
    assert difference(changed, plain) == 'ATEN_CPU_CAPABILITY was "default", is not set'
    served = RerankOptions(engine="openai", base_url="http://h:1/v1")
    environment = {"ATEN_CPU_CAPABILITY": "default"}
    assert "ATEN_CPU_CAPABILITY" not in run_settings(plan_with("m", served), requests="r", environment=environment)


def test_what_the_loaded_model_tells_counts(monkeypatch):
    """Its device, the attention selected by `auto`, the kernels; nothing for a server."""
    torch = pytest.importorskip("torch")
    engine = ScriptedEngine(lambda prompt: None)
    served = loaded_settings(engine, "")
    assert set(served) == set(LOADED_SETTINGS)
    assert [value for value in served.values() if value] == []
    engine.attention, engine.device = "sdpa", torch.device("cpu")
    known = loaded_settings(engine, "cpu in float32")
    assert set(known) == set(LOADED_SETTINGS)
    assert known["attention"] == "sdpa"
    assert known["torch build"] == torch.__version__
    assert known["CPU kernels"].startswith(torch.backends.cpu.get_cpu_capability())
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "OTHER")
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    engine.attention = "eager"
    changed = loaded_settings(engine, "cpu in bfloat16")
    assert set(changed_names(known, changed)) == {
        "--device and --dtype",
        "attention",
        "CPU kernels",
        "float32 products",
    }


def safetensors(path, **tensors):
    """A safetensors file whose tensors contain these bytes."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, held in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(held)], "data_offsets": [len(data), len(data) + len(held)]}
        data += held
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_a_head_that_was_trained_alone_is_another_model(model):
    """A few kilobytes among gigabytes; and any fully trained tensor."""
    file = model / "model.safetensors"
    large, head = bytes(5 << 20), bytes(4096)
    known = set()
    tensors = [
        {"a": large, "score": head, "b": large},
        {"a": large, "score": head[:-1] + b"\1", "b": large},
        {"a": large, "score": head, "b": b"\1" * len(large)},
        {"a": large, "score": head, "c": large},
    ]
    for held in tensors:
        safetensors(file, **held)
        known.add(model_identity(find_folder(str(model))))
    assert len(known) == len(tensors)


def test_every_byte_of_an_adapter_counts(tmp_path, model):
    """It is small enough to be read completely."""
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}), encoding="utf-8")
    safetensors(adapter / "adapter_model.safetensors", a=bytes(5 << 20))
    known = model_identity(find_folder(str(adapter)))
    data = bytearray((adapter / "adapter_model.safetensors").read_bytes())
    data[1234567] ^= 1
    (adapter / "adapter_model.safetensors").write_bytes(data)
    assert model_identity(find_folder(str(adapter))) != known


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 7,
        b"\xff" * 64,
        struct.pack("<Q", 31) + b'{"a": {"data_offsets": [0, 1, 2]}}',
        struct.pack("<Q", 33) + b'{"a": {"data_offsets": [0.5, 1]}}',
        struct.pack("<Q", 3) + b"[1]",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 90_000),
    ],
)
def test_weights_that_are_none_are_left_to_the_loader(model, data):
    """Any bytes in a file named like weights have an identity."""
    (model / "model.safetensors").write_bytes(data)
    assert model_identity(find_folder(str(model))).startswith("model sha256 ")


def test_a_folder_called_snapshots_is_not_the_hubs(tmp_path):
    """Only a folder named by a commit is identified by its name; others by their bytes."""
    folder = tmp_path / "snapshots" / "mymodel"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    before = folder_identity(folder)
    (folder / "config.json").write_text("[]")
    assert folder_identity(folder) != before
    commit = tmp_path / "snapshots" / ("0123456789" * 4)
    commit.mkdir()
    assert folder_identity(commit) == f"revision {commit.name}"

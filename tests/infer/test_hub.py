"""Locating a model: a folder, the hub, or a one-line error if there is neither."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chat_server import Reply, serving

from rankllm_core.errors import ContractError, RankLLMError
from rankllm_infer.checkpoints import hub
from rankllm_infer.checkpoints.model_files import find_folder, find_model, load_tokenizer, locate_model


@pytest.fixture(autouse=True)
def _nothing_remembered():
    hub._from_hub.cache_clear()
    yield
    hub._from_hub.cache_clear()


LOOK_FOR = """
import sys
from rankllm_core.errors import RankLLMError
from rankllm_infer.checkpoints.model_files import locate_model
for name in sys.argv[1:]:
    try:
        print(locate_model(name))
    except RankLLMError as error:
        print(error)
"""


def look_for(*names, endpoint, cache):
    """Result lines of a separate process with a local hub, one per name."""
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", LOOK_FOR, *names],
        capture_output=True,
        text=True,
        env=environment | {"NO_PROXY": "127.0.0.1"},
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


def folder_with(path, **files):
    """A folder with JSON files; keys are their names without the extension."""
    path.mkdir()
    for name, values in files.items():
        (path / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    return str(path)


def test_a_folder_is_the_model(tmp_path, monkeypatch):
    """An absolute path, a relative one, one in the home folder."""
    folder = folder_with(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert str(locate_model(folder)) == folder
    assert str(locate_model("model")) == "model"
    assert str(locate_model("~/model")) == folder


@pytest.mark.parametrize("name", ["nowhere", "./no/where", "/no/where", "~/nowhere", "a/b/c", "a b/c", "owner/", "ü/ö"])
def test_what_cannot_be_a_name_on_the_hub_must_be_a_folder(name):
    """No request is made; the message shows the form of hub names."""
    shipped = "bundled models: smollm2-pointwise, smollm2-first, smollm2"
    with pytest.raises(
        RankLLMError, match=rf": no such model folder \(a name on the hub looks like OWNER/MODEL; {shipped}\)$"
    ):
        locate_model(name)


def test_a_file_is_no_model(tmp_path):
    """Some users give the path of the weights."""
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(RankLLMError, match=r"model.safetensors: is a file, expected a model's folder"):
        locate_model(str(tmp_path / "model.safetensors"))


def test_without_a_network_it_is_one_line_at_once(tmp_path):
    """Not cached and hub unreachable: reported within seconds, without a traceback."""
    began = time.monotonic()
    (line,) = look_for("nobody/nothing", endpoint="http://127.0.0.1:9", cache=tmp_path)
    assert time.monotonic() - began < 20
    assert line.startswith(
        "nobody/nothing: no such model folder, not in the hub's cache, and the hub cannot be reached ("
    )


def test_what_the_hub_says_is_one_line(tmp_path):
    """A missing model, a gated one, an interrupted download."""

    def respond(received):
        if "/missing" in received.path:
            return Reply({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        if "/gated" in received.path:
            return Reply({"error": "Access is restricted"}, 403, {"X-Error-Code": "GatedRepo"})
        if received.path.startswith("/api/models/"):
            name = "/".join(received.path.split("/")[3:5])
            files = [{"rfilename": "config.json"}, {"rfilename": "model.safetensors"}]
            return {"id": name, "modelId": name, "sha": "0" * 40, "siblings": files, "tags": [], "private": False}
        return Reply({"error": "gone"}, 410)

    with serving(respond) as server:
        endpoint = server.base_url.removesuffix("/v1")
        lines = look_for("o/missing", "o/gated", "o/broken", endpoint=endpoint, cache=tmp_path)
    assert lines[0] == "o/missing: no such model folder, and no such model on the hub"
    terms = f"accept its terms at {endpoint}/o/gated with your account, then log in with: hf auth login"
    assert lines[1] == f"o/gated: is gated; {terms}"
    assert lines[2].startswith("o/broken: the download was interrupted (")
    assert lines[2].endswith("; repeat the command to resume")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"config": {"architectures": ["LlamaForCausalLM"]}}, False),
        ({"config": {"architectures": ["LlamaForSequenceClassification"]}}, True),
        ({"config": {}}, False),
        ({"adapter_config": {"task_type": "SEQ_CLS"}}, True),
        ({"adapter_config": {"task_type": "CAUSAL_LM"}}, False),
        (
            {"adapter_config": {"task_type": None}, "config": {"architectures": ["LlamaForSequenceClassification"]}},
            False,
        ),
    ],
)
def test_a_checkpoint_says_whether_it_has_a_score_head(tmp_path, files, expected):
    """By its architecture or its adapter's task."""
    assert find_folder(folder_with(tmp_path / "model", **files)).has_score_head is expected


def test_a_checkpoint_is_an_adapter_or_a_model(tmp_path):
    """By its files."""
    adapter = find_folder(folder_with(tmp_path / "adapter", adapter_config={"r": 8}))
    model = find_folder(folder_with(tmp_path / "model", config={"vocab_size": 3}))
    assert (adapter.adapter, adapter.config) == ({"r": 8}, {})
    assert (model.adapter, model.config) == (None, {"vocab_size": 3})


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", r"config.json: not JSON \("), ("[]", r"config.json: expected a JSON object, found list")],
)
def test_a_damaged_configuration_is_named(tmp_path, text, message):
    """The file and the problem."""
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(RankLLMError, match=message):
        find_folder(str(tmp_path))


def test_an_adapters_base_is_the_one_asked_for_or_the_one_it_names(tmp_path):
    """A full model is its own base; an adapter without one is an error that names the option."""
    base, other = folder_with(tmp_path / "base"), folder_with(tmp_path / "other")
    adapter = folder_with(tmp_path / "adapter", adapter_config={"base_model_name_or_path": base})
    assert str(find_model(base).base.path) == base
    assert str(find_model(adapter).base.path) == base
    assert str(find_model(adapter, other).base.path) == other
    alone = folder_with(tmp_path / "alone", adapter_config={"base_model_name_or_path": None})
    with pytest.raises(
        ContractError, match=r"alone: adapter_config.json names no base model; specify it with --base-mod"
    ):
        find_model(alone)


def test_an_adapter_without_a_tokenizer_has_its_bases(tmp_path, smollm2_tokenizer):
    """Adapters are often saved without a tokenizer."""
    smollm2_tokenizer.save_pretrained(tmp_path / "base")
    adapter = folder_with(tmp_path / "adapter", adapter_config={"base_model_name_or_path": str(tmp_path / "base")})
    assert load_tokenizer(find_model(adapter).tokenizer_folder).get_vocab() == smollm2_tokenizer.get_vocab()


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    """One line instead of the message of transformers."""
    with pytest.raises(RankLLMError, match=r"model: cannot load a tokenizer from it \("):
        load_tokenizer(Path(folder_with(tmp_path / "model", config={"model_type": "llama"})))

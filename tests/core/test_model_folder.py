"""A model folder is checked from JSON and file headers, before any library opens its files."""

from __future__ import annotations

import json
import struct

import pytest

from rankllm_core.checkpoints.model_folder import (
    MAX_DEPTH,
    check_settings_files,
    check_trusted_source,
    depth_exceeds,
    own_code,
    read_model_json,
    split_revision,
)
from rankllm_core.checkpoints.weights import TensorInfo, read_safetensors_header, read_weight_headers
from rankllm_core.errors import ConfigError, ContractError, RankLLMError
from rankllm_core.nn.model_parts import first_line, readable_load

CONFIG = {"model_type": "llama", "vocab_size": 4, "hidden_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1}


def safetensors(path, header, data=b"", *, length=None):
    """A file with the given header and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def tensor(begin, end, *, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def model(folder, config=None, **tensors):
    """A folder with a configuration and zero weights."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | (config or {})))
    tensors = tensors or {"model.embed_tokens.weight": [4, 2], "model.layers.0.up.weight": [2]}
    header, at = {}, 0
    for name, shape in tensors.items():
        size = 4
        for n in shape:
            size *= n
        header[name] = tensor(at, at + size, shape=shape)
        at += size
    safetensors(folder / "model.safetensors", header, bytes(at))
    return folder


def test_a_header_says_what_a_file_holds(tmp_path):
    """Types and shapes, including empty tensors and metadata; 4-bit elements count half a byte."""
    header = {
        "__metadata__": {"format": "pt"},
        "b": tensor(24, 25, shape=[2], dtype="F4"),
        "a": tensor(0, 24, shape=[2, 3]),
        "none": tensor(0, 0, shape=[0, 5], dtype="BF16"),
        "one": tensor(25, 33, shape=[], dtype="I64"),
    }
    safetensors(tmp_path / "m.safetensors", header, bytes(33))
    assert read_safetensors_header(tmp_path / "m.safetensors") == {
        "b": TensorInfo(dtype="F4", shape=(2,)),
        "a": TensorInfo(dtype="F32", shape=(2, 3)),
        "none": TensorInfo(dtype="BF16", shape=(0, 5)),
        "one": TensorInfo(dtype="I64", shape=()),
    }


@pytest.mark.parametrize(
    ("header", "data", "said"),
    [
        (b"[]", b"", "a header that is not a JSON object"),
        (b"{", b"", "a header that is not JSON"),
        (b'{"a": 1, "a": 2}', b"", r"ambiguous \(a name occurs twice\)"),
        ({"a": []}, b"", "no description of tensor 'a'"),
        ({"a": tensor(0, 4, shape=[1], dtype="F31")}, bytes(4), "of the unknown type 'F31'"),
        ({"a": tensor(0, 4, shape=[1], dtype=["F32"])}, bytes(4), "of the unknown type"),
        ({"a": tensor(0, 4, shape=[True])}, bytes(4), "impossible shape"),
        ({"a": tensor(0, 4, shape=[1.0])}, bytes(4), "impossible shape"),
        ({"a": tensor(0, 4, shape=[1] * 99)}, bytes(4), "impossible shape"),
        ({"a": tensor(0, 1, shape=[1], dtype="F4")}, bytes(1), "1 bytes for F4"),
        ({"a": tensor(4, 8, shape=[1])}, bytes(8), "at byte 4, expected at 0"),
        ({"a": tensor(0, 4, shape=[1]), "b": tensor(2, 6, shape=[1])}, bytes(6), "at byte 2, expected at 4"),
        ({"a": tensor(0, 4, shape=[1])}, bytes(3), "3 bytes of weights, expected 4"),
        ({"a": tensor(0, 4, shape=[1])}, bytes(5), "5 bytes of weights, expected 4"),
    ],
)
def test_a_header_that_does_not_fit_is_named(tmp_path, header, data, said):
    """The error is one line and names the file."""
    safetensors(tmp_path / "m.safetensors", header, data)
    with pytest.raises(RankLLMError, match=f"m.safetensors: damaged or incomplete weights: found .*{said}"):
        read_safetensors_header(tmp_path / "m.safetensors")


def test_a_folder_that_is_whole_passes(tmp_path):
    """The tensors are returned with their description."""
    folder = model(tmp_path / "m")
    check_settings_files(folder)
    assert read_weight_headers(folder)["model.embed_tokens.weight"].shape == (4, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_position_embeddings": None}, "max_position_embeddings: expected an integer from 1 to"),
        ({"vocab_size": True}, "vocab_size: expected an integer"),
        ({"vocab_size": 4.0}, "vocab_size: expected an integer"),
        ({"text_config": {"vocab_size": 0}}, "text_config.vocab_size: expected an integer"),
        ({"num_key_value_heads": -1}, "num_key_value_heads: expected an integer"),
        ({"eos_token_id": ["x"]}, "eos_token_id: expected a token id, found 'x'"),
        (
            {"attn_implementation": "owner/kernel@main:run"},
            "attn_implementation: 'owner/kernel@main:run' names a kernel",
        ),
        ({"vision_config": {"_attn_implementation": "o/k"}}, "_attn_implementation: 'o/k' names a kernel on the hub"),
        ({"_attn_implementation": {"text_config": "paged|o/k"}}, "names a kernel on the hub"),
        ({"_experts_implementation": "o/k"}, "names a kernel on the hub"),
    ],
)
def test_a_configuration_is_bounded_and_names_no_code(tmp_path, change, said):
    """The error gives the key, what was found and what was expected."""
    with pytest.raises(RankLLMError, match=f"config.json: .*{said}"):
        check_settings_files(model(tmp_path / "m", change))


@pytest.mark.parametrize("value", [None, [2, 2], 7])
def test_what_published_configurations_hold_passes(tmp_path, value):
    """Sizes may be null if the library has a default, or one per layer."""
    check_settings_files(model(tmp_path / "m", {"num_key_value_heads": value, "attn_implementation": "sdpa"}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vocab_size": 5}, r"config.json has vocab_size 5, but the weights have 4 rows \(model.embed_tokens.weight\)"),
        ({"num_hidden_layers": 999}, "config.json has 999 layers, but the weights only 1"),
    ],
)
def test_a_configuration_of_another_model_is_named(tmp_path, change, said):
    """The mismatch is detected before missing weights are allocated."""
    with pytest.raises(ContractError, match=said):
        read_weight_headers(model(tmp_path / "m", change))


def test_depth_is_counted_without_recursion():
    """At the limit and beyond it, for lists and mappings."""
    value: object = 1
    for level in range(MAX_DEPTH):
        value = [value] if level % 2 else {"a": value}
    assert not depth_exceeds(value, MAX_DEPTH + 1)
    assert depth_exceeds([[value]], MAX_DEPTH)


def test_files_that_are_none_are_named(tmp_path):
    """A folder, a broken link, a pipe; a missing file is None."""
    import os

    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link.json").symlink_to("nowhere")
    assert read_model_json(tmp_path / "none.json") is None
    with pytest.raises(RankLLMError, match="is a folder, expected a file"):
        read_model_json(tmp_path / "folder.json")
    with pytest.raises(RankLLMError, match="is a link to a file that does not exist"):
        read_model_json(tmp_path / "link.json")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.json")
        with pytest.raises(RankLLMError, match="is a pipe or a device"):
            read_model_json(tmp_path / "pipe.json")


def test_a_byte_order_mark_before_json_is_skipped(tmp_path):
    """Some editors write a byte-order mark."""
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_model_json(tmp_path / "a.json") == {"a": 1}


def test_a_name_may_be_pinned_to_a_commit():
    """Only forty hex digits count; anything else is part of the name."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert split_revision(f"owner/model@{commit}") == ("owner/model", commit)
    assert split_revision("owner/model@main") == ("owner/model@main", None)
    assert split_revision(f"owner/model@{commit[:39]}") == (f"owner/model@{commit[:39]}", None)


def test_code_of_a_folder_is_found_and_bound_to_it(tmp_path):
    """In any setting that names code; references to other repositories are rejected."""
    folder = model(tmp_path / "m", {"auto_map": {"AutoConfig": "own.Config"}})
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["own.T", None]}}))
    assert own_code(folder) == ("config.json", "tokenizer_config.json")
    check_trusted_source(str(folder), folder=folder, option="--x")
    check_trusted_source("o/m@" + "a" * 40, folder=folder, option="--x")
    check_trusted_source("o/m", folder=folder, option="--x", revision="a" * 40)
    for revision in ("main", "v1.0", "a" * 39):
        with pytest.raises(ConfigError, match=f"found 'o/m@{revision}'"):
            check_trusted_source("o/m", folder=folder, option="--x", revision=revision)
    for name in ("o/m", "o/m@main", "o/m@" + "a" * 39, "o/m@" + "A" * 40):
        with pytest.raises(ConfigError, match="only for a local folder or a pinned revision"):
            check_trusted_source(name, folder=folder, option="--x")
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": [None, "o/m--own.T"]}}))
    with pytest.raises(ConfigError, match=r"code in another repository \('o/m--own.T'\)"):
        check_trusted_source(str(folder), folder=folder, option="--x")


class PanicException(BaseException):
    """The exception type that pyo3 uses for a panic in Rust."""


@pytest.mark.parametrize(
    "kind", [KeyError, TypeError, RecursionError, MemoryError, ImportError, OSError, PanicException]
)
def test_whatever_a_library_raises_is_one_line(kind):
    """The folder comes first, and the cause stays attached."""
    with pytest.raises(RankLLMError, match=r"^m: the model cannot be loaded") as caught, readable_load("m"):
        raise kind("first\nsecond\x1b[31m")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert isinstance(caught.value.__cause__, kind)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_stops_a_program_passes(kind):
    """Ctrl-C while loading a model is not a damaged model."""
    with pytest.raises(kind), readable_load("m"):
        raise kind


def test_an_error_that_is_one_line_already_passes():
    """Its message is more specific."""
    with pytest.raises(ConfigError, match=r"^mine$"), readable_load("m"):
        raise ConfigError("mine")


def test_the_first_line_is_followed_where_it_ends_in_a_colon():
    """Some libraries put the problem on the second line."""
    assert first_line(ValueError("invalid:\n  heads do not divide\nmore")) == "ValueError: invalid: heads do not divide"
    assert first_line(ValueError("")) == "ValueError"
    assert len(first_line(ValueError("x" * 9999))) < 260


def test_a_long_first_line_is_cut_between_words():
    """What is shown is a part of the message, with no word broken."""
    words = [f"word{number}" for number in range(100)]
    shown = first_line(ValueError(" ".join(words)), with_kind=False)
    assert shown.endswith(" ...")
    kept = shown.removesuffix(" ...").split(" ")
    assert kept == words[: len(kept)]
    assert 200 < len(shown) <= 240


@pytest.mark.parametrize("value", ["x", [1], {}, True])
def test_a_longest_input_that_is_no_number_is_named(tmp_path, value):
    """The tokenizer would compare it with a number."""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": value}))
    with pytest.raises(RankLLMError, match=r"tokenizer_config\.json: model_max_length: expected a number"):
        check_settings_files(tmp_path)


@pytest.mark.parametrize("value", [2048, 1e30, 10**30, None])
def test_a_longest_input_is_a_number_or_none(tmp_path, value):
    """transformers writes 1e30 for a tokenizer without a maximum."""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": value}))
    check_settings_files(tmp_path)

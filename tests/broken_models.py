"""Ways in which a model's folder can be broken: by hand, by a torn copy, by a flipped bit."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from tiny_models import change_json

Break = Callable[[Path], object]


def write(name: str, content: bytes) -> Break:
    """Put other bytes in a file's place."""
    return lambda folder: (folder / name).write_bytes(content)


def cut(name: str, keep: float) -> Break:
    """Keep the first part of a file alone."""

    def apply(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep)])

    return apply


def drop(name: str) -> Break:
    """Take a file away."""
    return lambda folder: (folder / name).unlink()


def config(**values: object) -> Break:
    """Change some values of config.json."""
    return lambda folder: change_json(folder / "config.json", **values)


def settings(name: str, **values: object) -> Break:
    """Change some values of another JSON file."""
    return lambda folder: change_json(folder / name, **values)


def header(change: Callable[[dict], object], *, file: str = "model.safetensors") -> Break:
    """Write another safetensors header before the same bytes of weights."""

    def apply(folder: Path) -> None:
        content = (folder / file).read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        values = json.loads(content[8 : 8 + length])
        change(values)
        written = json.dumps(values).encode()
        (folder / file).write_bytes(struct.pack("<Q", len(written)) + written + content[8 + length :])

    return apply


def first_tensor(**values: object) -> Callable[[dict], object]:
    """Another description of the first tensor of a header."""
    return lambda header: next(entry for name, entry in header.items() if name != "__metadata__").update(values)


def sharded(folder: Path, **entries: str) -> None:
    """Put an index in place of the single file. entries: replace those of the index."""
    with (folder / "model.safetensors").open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        names = [name for name in json.loads(stream.read(length)) if name != "__metadata__"]
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    weight_map = dict.fromkeys(names, "model-00001-of-00001.safetensors") | entries
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def pickled(content: bytes | None = None) -> Break:
    """Put pickled weights in place of the safe ones; None: a pickle that would run code."""

    def apply(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Runs(folder)) if content is None else content)

    return apply


class _Runs:
    """Writes a file named `ran` beside itself when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return (exec, (f"open({str(self.folder / 'ran')!r}, 'w').close()",))


BOMB = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
DEEP = b'{"a":' * 400 + b"1" + b"}" * 400
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 6291456\n"

MODELS: dict[str, Break] = {
    "torn weights": cut("model.safetensors", 0.5),
    "weights without their last byte": cut("model.safetensors", 0.9999999),
    "empty weights": write("model.safetensors", b""),
    "weights of seven bytes": write("model.safetensors", b"1234567"),
    "no weights": drop("model.safetensors"),
    "weights that are a text": write("model.safetensors", b"<html>404 Not Found</html>" * 9),
    "weights that are a Git LFS pointer": write("model.safetensors", POINTER),
    "a header longer than the file": write("model.safetensors", struct.pack("<Q", 1 << 40) + b"{}"),
    "a header of exabytes": write("model.safetensors", b"\xff" * 16),
    "a header that is a bomb": write("model.safetensors", struct.pack("<Q", len(BOMB)) + BOMB),
    "a tensor of an unknown type": header(first_tensor(dtype="F31")),
    "a tensor of another shape than its bytes": header(first_tensor(shape=[1, 2, 3])),
    "a tensor of an impossible shape": header(first_tensor(shape=[1 << 62, 1 << 62])),
    "a tensor of a negative shape": header(first_tensor(shape=[-1, 32])),
    "a tensor behind the end": header(first_tensor(data_offsets=[0, 1 << 50])),
    "a header without offsets": header(first_tensor(data_offsets=None)),
    "pickled weights that run code": pickled(),
    "pickled weights that are empty": pickled(b""),
    "pickled weights that are a text": pickled(b"not a pickle"),
    "pickled weights that are torn": pickled(b"PK\x03\x04" + b"\0" * 99),
    "an index whose shard is missing": lambda folder: sharded(folder, x="model-00002-of-00002.safetensors"),
    "an index that leaves the folder": lambda folder: sharded(folder, x="../x.safetensors"),
    "an index that names what is not there": lambda folder: sharded(folder, x="model-00001-of-00001.safetensors"),
    "an index that is a list": lambda folder: (
        sharded(folder),
        (folder / "model.safetensors.index.json").write_text("[]"),
    ),
    "no configuration": drop("config.json"),
    "an empty configuration": write("config.json", b""),
    "a torn configuration": cut("config.json", 0.5),
    "a configuration that is no text": write("config.json", b"\xff\xfe\x00{"),
    "a configuration that is a list": write("config.json", b"[]"),
    "a configuration that is a bomb": write("config.json", BOMB),
    "a configuration nested deeply": write("config.json", DEEP),
    "a number of 5,000 digits": write("config.json", b'{"model_type": "llama", "vocab_size": ' + b"9" * 5000 + b"}"),
    "no kind of model": config(model_type=None, architectures=None),
    "an unknown kind of model": config(model_type="nonesuch", architectures=["NoneSuchForCausalLM"]),
    "a kind of model that is a number": config(model_type=7),
    "architectures that are a text": config(architectures="LlamaForCausalLM"),
    "positions that are null": config(max_position_embeddings=None),
    "positions that are a text": config(max_position_embeddings="many"),
    "positions below zero": config(max_position_embeddings=-1),
    "no vocabulary": config(vocab_size=0),
    "a smaller vocabulary": config(vocab_size=100),
    "a larger vocabulary": config(vocab_size=60_000),
    "a huge vocabulary": config(vocab_size=10**12),
    "a vocabulary that is a list": config(vocab_size=[]),
    "another width": config(hidden_size=64),
    "a width that the heads do not divide": config(hidden_size=33),
    "a width that is a text": config(hidden_size="wide"),
    "a huge width": config(hidden_size=10**15),
    "more layers": config(num_hidden_layers=3),
    "a million layers": config(num_hidden_layers=1_000_000),
    "a thousand layers": config(num_hidden_layers=1000),
    "layers below zero": config(num_hidden_layers=-3),
    "layers that are true": config(num_hidden_layers=True),
    "no heads": config(num_attention_heads=0),
    "three groups of four heads": config(num_key_value_heads=3),
    "an unknown activation": config(hidden_act="nonesuch"),
    "a type that is none": config(dtype="float17", torch_dtype="float17"),
    "positions turned by nobody knows what": config(rope_parameters={"rope_type": "nonesuch"}, rope_scaling=None),
    "positions turned by a text": config(rope_parameters="linear"),
    "a quantization that is unknown": config(quantization_config={"quant_method": "nonesuch"}),
    "a quantization that is a text": config(quantization_config="4bit"),
    "an attention that is unknown": config(attn_implementation="nonesuch"),
    "an attention from the hub": config(attn_implementation="owner/kernel"),
    "an attention from the hub in a part": config(_attn_implementation={"": "owner/kernel:run"}),
    "a torn tokenizer": cut("tokenizer.json", 0.5),
    "an empty tokenizer": write("tokenizer.json", b""),
    "a tokenizer that is empty JSON": write("tokenizer.json", b"{}"),
    "a tokenizer that is a bomb": write("tokenizer.json", BOMB),
    "a tokenizer without a model": settings("tokenizer.json", model=None),
    "a tokenizer with a negative id": settings("tokenizer.json", added_tokens=[{"id": -1, "content": "x"}]),
    "a tokenizer's settings that are a list": write("tokenizer_config.json", b"[]"),
    "a tokenizer's class that is a number": settings("tokenizer_config.json", tokenizer_class=3),
    "a tokenizer's tokens that are a number": settings("tokenizer_config.json", added_tokens_decoder=3),
    "generation settings that are a list": write("generation_config.json", b"[]"),
    "generation settings of another type": write("generation_config.json", b'{"eos_token_id": "end"}'),
}
"""A full model, broken; every one must end in one line."""

ADAPTERS: dict[str, Break] = {
    "torn weights": cut("adapter_model.safetensors", 0.5),
    "empty weights": write("adapter_model.safetensors", b""),
    "no weights": drop("adapter_model.safetensors"),
    "a Git LFS pointer": write("adapter_model.safetensors", POINTER),
    "a header that is a bomb": write("adapter_model.safetensors", struct.pack("<Q", len(BOMB)) + BOMB),
    "torn settings": cut("adapter_config.json", 0.5),
    "empty settings": write("adapter_config.json", b""),
    "settings that are a list": write("adapter_config.json", b"[]"),
    "settings that are a bomb": write("adapter_config.json", BOMB),
    "settings without a kind": settings("adapter_config.json", peft_type=None),
    "an unknown kind": settings("adapter_config.json", peft_type="NONESUCH"),
    "prompt tuning": settings("adapter_config.json", peft_type="PROMPT_TUNING"),
    "an unknown task": settings("adapter_config.json", task_type="NONESUCH"),
    "another rank": settings("adapter_config.json", r=8),
    "a huge rank": settings("adapter_config.json", r=10**9),
    "a rank of many gigabytes": settings("adapter_config.json", r=16_000),
    "a rank below zero": settings("adapter_config.json", r=-1),
    "a rank that is a text": settings("adapter_config.json", r="four"),
    "a scale that is a text": settings("adapter_config.json", lora_alpha="eight"),
    "no modules": settings("adapter_config.json", target_modules=None),
    "unknown modules": settings("adapter_config.json", target_modules=["nonesuch"]),
    "modules that are a number": settings("adapter_config.json", target_modules=3),
    "modules that are no pattern": settings("adapter_config.json", target_modules="(("),
    "modules that take for ever to match": settings("adapter_config.json", target_modules=r"([\w.]+)+!"),
    "a base that is a number": settings("adapter_config.json", base_model_name_or_path=3),
    "no base": settings("adapter_config.json", base_model_name_or_path=None),
    "a base that is not there": settings("adapter_config.json", base_model_name_or_path="/no/where"),
}
"""An adapter, broken."""


def damaged(folder: Path, target: Path, *, seed: int, each: int) -> Iterator[tuple[str, Path]]:
    """Copies of a folder, each with one file cut or with flipped bits at random places; (what was done, the copy)."""
    random = Random(seed)
    for name in sorted(path.name for path in folder.iterdir() if path.is_file()):
        if not (folder / name).stat().st_size:
            continue
        for number in range(each):
            copy = target / f"{name}-{number}"
            shutil.copytree(folder, copy)
            content = bytearray((copy / name).read_bytes())
            if number % 2:
                keep = random.randrange(len(content) + 1)
                content = content[:keep]
                what = f"{name} cut to {keep} bytes"
            else:
                # Half of the flips near the start, where headers are.
                places = [random.randrange(min(len(content), random.choice((400, 1 << 60)))) for _ in range(3)]
                for place in places:
                    content[place] ^= 1 << random.randrange(8)
                what = f"{name} with bits flipped at {places}"
            (copy / name).write_bytes(content)
            yield what, copy
            shutil.rmtree(copy)

"""A model's files, found and read once: settings, tokenizer, an adapter's base, its own code, and its identity."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from rankllm_core.checkpoints.model_folder import check_settings_files, check_trusted_source, own_code, read_model_json
from rankllm_core.checkpoints.weights import MAX_HEADER_BYTES
from rankllm_core.errors import ConfigError, ContractError, RankLLMError
from rankllm_core.nn.model_parts import readable_load
from rankllm_infer.checkpoints.head_modules import module_folders
from rankllm_infer.checkpoints.hub import find_elsewhere, is_shipped, shipped_base

_TRUST_OPTION = "--trust-remote-code"
_NO_BASE = (
    "{name}: is an adapter, and its base model cannot be loaded ({error}); say where the base is, or its name on the "
    "hub, with --base-model"
)

_WEIGHT_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_SMALL_FILE_ENDINGS = (".json", ".model", ".jinja", ".tiktoken", ".spm", ".py", "vocab.txt", "merges.txt")
_ADAPTER_STEM = "adapter_model"
"""Adapters are small: all of their bytes count."""

_N_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16
_TENSOR_BYTES = 1 << 14
"""Tensors up to this size are read whole (norms, biases, the score head), of others so much in three spots."""
_MANY_TENSORS = 2_000
"""Of files with more tensors (mixtures of experts), one spot each is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A checkpoint, and what its small files say. Of a hub model, the weights may not have been fetched yet."""

    name: str
    """As it was named: a folder or a name on the hub."""
    path: Path
    config: Mapping[str, object] = field(default_factory=dict, repr=False)
    """`config.json`; empty where there is none, as in an adapter's folder."""
    adapter: Mapping[str, object] | None = field(default=None, repr=False)
    """`adapter_config.json`; None for a full model."""

    @property
    def has_score_head(self) -> bool:
        """Whether the checkpoint says that it was trained with a score head."""
        if self.adapter is not None:
            return self.adapter.get("task_type") == "SEQ_CLS"
        architectures = self.config.get("architectures")
        return isinstance(architectures, list) and any(
            str(name).endswith("ForSequenceClassification") for name in architectures
        )

    @property
    def has_tokenizer(self) -> bool:
        """Whether it brings a tokenizer of its own."""
        return any((self.path / name).exists() for name in ("tokenizer.json", "tokenizer_config.json"))

    @property
    def positions(self) -> int | None:
        """How many tokens the model has positions for; None where its configuration does not say."""
        found = self.config.get("max_position_embeddings")
        return found if isinstance(found, int) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model with all that it is loaded from."""

    own: ModelFolder
    base: ModelFolder
    """Where the weights are: an adapter's base, else the model itself."""

    @property
    def tokenizer_folder(self) -> Path:
        """The checkpoint's own folder, or, of an adapter without a tokenizer, its base's."""
        return self.own.path if self.own.has_tokenizer else self.base.path

    def with_weights(self) -> ModelFiles:
        """The same model with its weights at hand. Raises RankLLMError where they cannot be fetched from the hub."""
        own = replace(self.own, path=locate_model(self.own.name))
        if self.base is self.own:
            return ModelFiles(own=own, base=own)
        try:
            path = locate_model(self.base.name)
        except RankLLMError as error:
            raise RankLLMError(_NO_BASE.format(name=self.own.name, error=error)) from None
        return ModelFiles(own=own, base=replace(self.base, path=path))


def find_model(name_or_path: str, base_model: str | None = None) -> ModelFiles:
    """Find a model and, where it is an adapter, its base; see `find_base`."""
    own = find_folder(name_or_path)
    return ModelFiles(own=own, base=find_base(own, base_model))


def find_folder(name_or_path: str) -> ModelFolder:
    """Find a checkpoint and read its small files. Raises RankLLMError in one line; see `locate_model`."""
    path = locate_model(name_or_path, weights=False)
    return ModelFolder(
        name=name_or_path,
        path=path,
        config=read_model_json(path / "config.json") or {},
        adapter=read_model_json(path / "adapter_config.json"),
    )


def find_base(own: ModelFolder, base_model: str | None = None) -> ModelFolder:
    """Where the weights are: the model itself, or an adapter's base (`base_model`, else the one it names).

    Raises ContractError when an adapter names no base, or a base that is an adapter itself.
    """
    if own.adapter is None:
        return own
    named = base_model or own.adapter.get("base_model_name_or_path")
    if base_model is None and is_shipped(own.path):
        named = shipped_base()
    if not named:
        raise ContractError(f"{own.name}: adapter_config.json names no base model; give it with --base-model")
    try:
        base = find_folder(str(named))
    except RankLLMError as error:
        if base_model is not None:
            raise
        raise RankLLMError(_NO_BASE.format(name=own.name, error=error)) from None
    # transformers would go on to the base of the base by itself, wherever that is.
    if base.adapter is not None:
        raise ContractError(
            f"{own.name}: its base {named} is an adapter itself; merge that one first (train merge {named} OUT) "
            "and give the result with --base-model"
        )
    return base


def locate_model(name_or_path: str, *, weights: bool = True) -> Path:
    """The folder with a model's files; a hub name is fetched, or found in the cache when the hub cannot be reached.

    A hub name may be pinned to a revision: OWNER/MODEL@COMMIT, with all 40 digits of the commit hash.
    weights: whether a hub model's weights are wanted, or its small files alone (configuration, tokenizer, card).
    Raises RankLLMError in one line when it is nowhere, or when one of its small files is damaged.
    """
    folder = Path(name_or_path).expanduser()
    if not folder.is_dir():
        folder = find_elsewhere(name_or_path, weights=weights)
    _check_once(folder, _stamp(folder))
    return folder


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """What tells whether a small file has changed: names, times and sizes. A folder may be written again meanwhile."""
    found = (
        (path.name, path.stat()) for path in sorted(folder.iterdir()) if path.suffix in (".json", ".jinja", ".model")
    )
    return tuple((name, status.st_mtime_ns, status.st_size) for name, status in found)


@functools.cache
def _check_once(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> None:
    check_settings_files(folder)


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer in a folder; see `ModelFiles.tokenizer_folder`.

    trust_remote_code: run code that comes with it, unless the folder is an adapter's; see `check_remote_code`.
    Raises RankLLMError in one line where none can be loaded.
    """
    from transformers import AutoTokenizer

    from rankllm_core.nn.model_parts import fast_tokenizer_options

    trusted = trust_remote_code and not (folder / "adapter_config.json").exists()
    with readable_load(folder, problem="no tokenizer can be loaded from it"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted, **fast_tokenizer_options())


def check_remote_code(own: ModelFolder, base_model: str | None = None) -> tuple[str, ...]:
    """Check that code which comes with a model may run, and report for the run's log which code that is.

    Code is never run unless it is allowed for one folder or one revision of the hub. Of an adapter, it is its base's
    code, and the base must be named by `base_model`: the one in the adapter's own settings is the choice of whoever
    wrote them. Raises ConfigError where code is allowed from anywhere else, or where there is none to allow.
    """
    if own.adapter is not None and base_model is None:
        raise ConfigError(
            f"{_TRUST_OPTION}: {own.name} is an adapter; name the base whose code may run with --base-model"
        )
    trusted = own if own.adapter is None else find_folder(str(base_model))
    check_trusted_source(trusted.name, folder=trusted.path, option=_TRUST_OPTION)
    files = own_code(trusted.path)
    if not files:
        raise ConfigError(f"{_TRUST_OPTION} has no effect: {trusted.path} has no code of its own; leave it out")
    return (f"{_TRUST_OPTION}: code from {trusted.path} runs with your permissions ({', '.join(files)})",)


def unused_code(files: ModelFiles) -> tuple[str, ...]:
    """Report, for the run's log, the code that comes with a model and is not run."""
    return tuple(
        f"{path}: has code of its own ({', '.join(found)}), which is not run; transformers' own is"
        for path in dict.fromkeys((files.own.path, files.base.path))
        if (found := own_code(path))
    )


def model_identity(model: ModelFolder) -> str:
    """A model's name and what tells its files from those of another one.

    Of a model of the hub, the revision. Of a folder, a hash of the bytes: of small files and adapters all, of weights
    a part of every tensor. Unlike dates, that survives a copy, and it notices a model that was trained on in the same
    folder, its head alone included; unlike a hash of all weights, it takes no minute.
    """
    return f"{Path(model.name).expanduser().absolute().name} {folder_identity(model.path)}"


def folder_identity(folder: Path) -> str:
    """What tells a model's files from others: a revision of the hub, or a hash."""
    if folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name):
        return f"revision {folder.name}"
    digest = hashlib.sha256()
    for path in _identity_files(folder):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        is_sampled = path.suffix in _WEIGHT_ENDINGS and not path.name.startswith(_ADAPTER_STEM)
        with path.open("rb") as stream:
            for block in _samples(stream, path) if is_sampled else iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    return f"sha256 {digest.hexdigest()[:32]}"


def _identity_files(folder: Path) -> Iterator[Path]:
    """The files that make a model what it is: its own, then those of a head that it keeps as modules."""
    for place in (folder, *(path for path in module_folders(folder) if path != folder and path.is_dir())):
        names = (item for item in place.iterdir() if item.name.endswith((*_WEIGHT_ENDINGS, *_SMALL_FILE_ENDINGS)))
        yield from (path for path in sorted(names) if path.is_file())


def _samples(stream: IO[bytes], path: Path) -> Iterator[bytes]:
    spots = _tensor_spots(stream, path.stat().st_size) if path.suffix == ".safetensors" else []
    for place, n_bytes in spots or _even_spots(path.stat().st_size):
        stream.seek(place)
        yield stream.read(n_bytes)


def _even_spots(size: int) -> list[tuple[int, int]]:
    step = max(_SAMPLE_BYTES, size // _N_SAMPLES)
    return [(place, _SAMPLE_BYTES) for place in range(0, size, step)]


def _tensor_spots(stream: IO[bytes], size: int) -> list[tuple[int, int]]:
    """Where to read a file of safetensors: its header and a part of every tensor; [] where it has none that is usable.

    Layout: eight bytes for the length of a JSON header, name -> {"data_offsets": [begin, end]}, then the data.
    """
    try:
        (n_header,) = struct.unpack("<Q", stream.read(8))
        if n_header > min(size, MAX_HEADER_BYTES):
            return []
        header = json.loads(stream.read(n_header))
        bounds = [map(int, header[name]["data_offsets"]) for name in header if name != "__metadata__"]
        data = 8 + n_header
        spots = [(data + begin, end - begin) for begin, end in bounds if 0 <= begin <= end <= size - data]
    except (struct.error, ValueError, RecursionError, LookupError, TypeError, OverflowError):
        # No safetensors: that is for the loader to say.
        return []
    small = [spot for spot in spots if spot[1] <= _TENSOR_BYTES]
    large = [spot for spot in spots if spot[1] > _TENSOR_BYTES]
    parts = (0.0, 0.5, 1.0) if len(large) <= _MANY_TENSORS else (0.5,)
    sampled = [(place + int(part * (n - _TENSOR_BYTES)), _TENSOR_BYTES) for place, n in large for part in parts]
    return sorted([(0, data), *small, *sampled])

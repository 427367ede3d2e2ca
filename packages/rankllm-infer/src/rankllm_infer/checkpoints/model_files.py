"""A model's files, located and read once: settings, tokenizer, an adapter's base, and custom code."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rankllm_core.card import Card
from rankllm_core.checkpoints.encoders import ENCODERS
from rankllm_core.checkpoints.model_folder import (
    check_settings_files,
    check_trusted_source,
    own_code,
    read_model_json,
    split_revision,
)
from rankllm_core.checkpoints.weights import TensorInfo, read_weight_headers
from rankllm_core.errors import ConfigError, ContractError, RankLLMError
from rankllm_core.files.manifest import MANIFEST_NAME, check_intact
from rankllm_core.nn.model_parts import readable_load
from rankllm_infer.checkpoints.bidirectional import Bidirectional, bidirectional_of
from rankllm_infer.checkpoints.hub import (
    HubUnreachableError,
    check_revision,
    commit_of,
    find_elsewhere,
    full_name,
    is_shipped,
    missing_base,
    shipped_base,
)
from rankllm_infer.checkpoints.sentencepiece_model import SENTENCEPIECE_MODEL, sentencepiece_tokenizer

ENCODER_DECODERS = ("mt5", "t5", "umt5")
"""Architectures with an encoder for the prompt and a decoder for the answer."""

_TRUST_OPTION = "--trust-remote-code"
_NO_BASE = (
    "{name}: is an adapter, and its base model cannot be loaded ({error}); specify the base's folder, or its "
    "name on the hub, with --base-model"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """Checkpoint with its small files. Weights of a hub model may not have been downloaded yet."""

    name: str
    """Name given by the user: a folder or a name on the hub."""
    path: Path
    revision: str | None = None
    """Branch, tag or commit on the hub, given in addition to the name."""
    config: Mapping[str, object] = field(default_factory=dict, repr=False)
    """`config.json`; empty if there is none, as in an adapter's folder."""
    adapter: Mapping[str, object] | None = field(default=None, repr=False)
    """`adapter_config.json`; None for a full model."""

    def fetched(self) -> ModelFolder:
        """Return the model with its weights downloaded, at the commit whose small files were read.

        Raises RankLLMError if they cannot be downloaded from the hub.
        """
        commit = commit_of(self.path)
        if commit is None or Path(self.name).expanduser().is_dir():
            return replace(self, path=locate_model(self.name))
        return replace(self, path=locate_model(split_revision(self.name)[0], revision=commit))

    @property
    def has_score_head(self) -> bool:
        """True if the checkpoint declares that it was trained with a score head."""
        if self.adapter is not None:
            return self.adapter.get("task_type") == "SEQ_CLS"
        architectures = self.config.get("architectures")
        return isinstance(architectures, list) and any(
            str(name).endswith("ForSequenceClassification") for name in architectures
        )

    @property
    def is_encoder(self) -> bool:
        """True for a bidirectional encoder that is not an adapter. BERT with `is_decoder` is not an encoder."""
        return self.adapter is None and self.config.get("model_type") in ENCODERS and not self.config.get("is_decoder")

    @property
    def is_encoder_decoder(self) -> bool:
        """True for an encoder-decoder such as T5 that is not an adapter."""
        return self.adapter is None and self.config.get("model_type") in ENCODER_DECODERS

    @property
    def is_quantized(self) -> bool:
        """True if its configuration declares quantized weights; see `checkpoints.quantization`."""
        text = self.config.get("text_config")
        parts = (self.config, text if isinstance(text, Mapping) else {})
        return any(part.get("quantization_config") is not None for part in parts)

    @property
    def has_tokenizer(self) -> bool:
        """True if it has its own tokenizer."""
        return any((self.path / name).exists() for name in ("tokenizer.json", "tokenizer_config.json"))

    @property
    def positions(self) -> int | None:
        """Number of positions of the model; None if its configuration does not specify it."""
        found = self.config.get("max_position_embeddings")
        return found if isinstance(found, int) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """Model with everything it is loaded from."""

    own: ModelFolder
    base: ModelFolder
    """Location of the weights: an adapter's base, else the model itself."""
    bidirectional: Bidirectional | None = None
    """How a decoder with bidirectional attention is read; None for other models."""

    @property
    def tokenizer_folder(self) -> Path:
        """The checkpoint's own folder or, for an adapter without a tokenizer, its base's."""
        return self.own.path if self.own.has_tokenizer else self.base.path

    def check_language_model(self) -> None:
        """Raise ContractError if the model has a score head instead of a language-model head."""
        if self.own.adapter is not None and self.own.has_score_head:
            raise ContractError(f"{self.own.path}: the adapter was trained with a score head; use --method pointwise")
        if self.base.has_score_head:
            raise ContractError(f"{self.base.path}: has a score head and no language model; use --method pointwise")

    def check_weights(self) -> Mapping[str, TensorInfo]:
        """Check the weight files, including an adapter's. Returns the tensors of the base by name.

        Raises RankLLMError if a file is damaged.
        """
        headers = {folder: read_weight_headers(folder) for folder in dict.fromkeys((self.base.path, self.own.path))}
        for folder in headers:
            if (folder / MANIFEST_NAME).exists():
                check_intact(folder)
        return headers[self.base.path]

    def with_weights(self) -> ModelFiles:
        """Return the model with its weights downloaded. Raises RankLLMError if they cannot be downloaded from the
        hub."""
        own = self.own.fetched()
        if self.base is self.own:
            return replace(self, own=own, base=own)
        try:
            return replace(self, own=own, base=self.base.fetched())
        except RankLLMError as error:
            raise RankLLMError(_NO_BASE.format(name=self.own.name, error=error)) from None


def find_model(name_or_path: str, base_model: str | None = None) -> ModelFiles:
    """Find a model and, if it is an adapter, its base; see `find_base`."""
    own = find_folder(name_or_path)
    return files_of(own, find_base(own, base_model))


def files_of(own: ModelFolder, base: ModelFolder, *, card: Card | None = None) -> ModelFiles:
    """Return a model's files and its kind of attention. card: the card in effect, which may add settings.

    Raises ContractError if card and configuration contradict each other.
    """
    return ModelFiles(own=own, base=base, bidirectional=bidirectional_of(base.config, name=base.name, card=card))


def find_folder(name_or_path: str, revision: str | None = None) -> ModelFolder:
    """Find a checkpoint and read its small files. Raises RankLLMError in one line; see `locate_model`."""
    path = locate_model(name_or_path, revision=revision, weights=False)
    return ModelFolder(
        name=name_or_path,
        path=path,
        revision=revision,
        config=read_model_json(path / "config.json") or {},
        adapter=read_model_json(path / "adapter_config.json"),
    )


def find_base(own: ModelFolder, base_model: str | None = None) -> ModelFolder:
    """Return the location of the weights: the model itself, or an adapter's base (`base_model`, else the one it names).

    Raises ContractError if an adapter names no base, or a base that is itself an adapter.
    """
    if own.adapter is None:
        return own
    named = base_model or own.adapter.get("base_model_name_or_path")
    if base_model is None and is_shipped(own.path):
        named = shipped_base()
    if not named:
        raise ContractError(f"{own.name}: adapter_config.json names no base model; specify it with --base-model")
    try:
        base = find_folder(str(named))
    except RankLLMError as error:
        if base_model is not None:
            raise
        if isinstance(error, HubUnreachableError) and is_shipped(own.path):
            raise missing_base() from None
        raise RankLLMError(_NO_BASE.format(name=own.name, error=error)) from None
    # transformers would silently continue with the base of the base, wherever that is.
    if base.adapter is not None:
        raise ContractError(
            f"{own.name}: its base {named} is itself an adapter; merge that first (train merge {named} OUT) "
            "and pass the result to --base-model"
        )
    return base


def locate_model(name_or_path: str, *, revision: str | None = None, weights: bool = True) -> Path:
    """Return the folder with a model's files; a hub model is downloaded, or taken from the cache if the hub is
    unreachable.

    A hub name may be pinned to a revision: OWNER/MODEL@COMMIT, with all 40 digits of the commit hash. revision: branch,
    tag or commit of a hub model that is not pinned; None for its main branch. weights: download a hub model's weights,
    or only its small files (configuration, tokenizer, card). Raises RankLLMError in one line if the model does not
    exist or one of its small files is damaged, and ConfigError if `revision` does not apply.
    """
    name = full_name(name_or_path)
    folder = Path(name).expanduser()
    if revision is not None:
        check_revision(name, revision)
    if not folder.is_dir():
        try:
            folder = find_elsewhere(name, revision=revision, weights=weights)
        except HubUnreachableError:
            if name == name_or_path:
                raise
            raise missing_base() from None
    _check_once(folder, _stamp(folder))
    return folder


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return names, times and sizes of small files, to detect changes by another process."""
    found = (
        (path.name, path.stat()) for path in sorted(folder.iterdir()) if path.suffix in (".json", ".jinja", ".model")
    )
    return tuple((name, status.st_mtime_ns, status.st_size) for name, status in found)


@functools.cache
def _check_once(folder: Path, stamp: tuple[tuple[str, int, int], ...]) -> None:
    check_settings_files(folder)


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """Load the tokenizer in a folder; see `ModelFiles.tokenizer_folder`.

    trust_remote_code: run code that comes with it, unless the folder is an adapter's; see `check_remote_code`. Raises
    RankLLMError in one line if there is no loadable tokenizer.
    """
    from transformers import AutoTokenizer

    from rankllm_core.nn.model_parts import fast_tokenizer_options

    trusted = trust_remote_code and not (folder / "adapter_config.json").exists()
    with readable_load(folder, problem="cannot load a tokenizer from it"):
        if _has_sentencepiece_alone(folder):
            return sentencepiece_tokenizer(folder)
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trusted, **fast_tokenizer_options())


def _has_sentencepiece_alone(folder: Path) -> bool:
    """Return whether T5's tokenizer consists of only SentencePiece's file."""
    if (folder / "tokenizer.json").exists() or not (folder / SENTENCEPIECE_MODEL).exists():
        return False
    return (read_model_json(folder / "config.json") or {}).get("model_type") in ENCODER_DECODERS


def check_remote_code(own: ModelFolder, base_model: str | None = None) -> tuple[str, ...]:
    """Check that code which comes with a model may run; return a log line that names this code.

    Code only runs if explicitly allowed for one folder or one revision on the hub. For an adapter, this is its base's
    code, and the base must be named by `base_model`, because the adapter's own settings are chosen by its author.
    Raises ConfigError if code is allowed from anywhere else, or if there is no code to allow.
    """
    if own.adapter is not None and base_model is None:
        raise ConfigError(
            f"{_TRUST_OPTION}: {own.name} is an adapter; name the base whose code may run with --base-model"
        )
    trusted = own if own.adapter is None else find_folder(str(base_model))
    check_trusted_source(trusted.name, folder=trusted.path, option=_TRUST_OPTION, revision=trusted.revision)
    files = own_code(trusted.path)
    if not files:
        raise ConfigError(f"{_TRUST_OPTION} has no effect: {trusted.path} contains no custom code; leave it out")
    return (f"{_TRUST_OPTION}: code from {trusted.path} runs with your permissions ({', '.join(files)})",)


def unused_code(files: ModelFiles) -> tuple[str, ...]:
    """Return log lines about code that comes with a model and is not run."""
    return tuple(
        f"{path}: contains custom code ({', '.join(found)}), which is not run; transformers' own is used"
        for path in dict.fromkeys((files.own.path, files.base.path))
        if (found := own_code(path))
    )

"""A model's small files, found and read once: its settings, an adapter's base, and code that comes with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rankllm_core.checkpoints.model_folder import check_trusted_source, own_code, read_model_json
from rankllm_core.errors import ConfigError, ContractError, RankLLMError
from rankllm_infer.checkpoints.bundled import is_shipped, shipped_base
from rankllm_infer.checkpoints.hub import locate_model

_TRUST = "--trust-remote-code"


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


_NO_BASE = (
    "{name}: is an adapter, and its base model cannot be loaded ({error}); say where the base is, or its name on the "
    "hub, with --base-model"
)


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


def find_folder(name_or_path: str) -> ModelFolder:
    """Find a checkpoint and read its small files. Raises RankLLMError in one line; see `locate_model`."""
    path = locate_model(name_or_path, weights=False)
    return ModelFolder(
        name=name_or_path,
        path=path,
        config=read_model_json(path / "config.json") or {},
        adapter=read_model_json(path / "adapter_config.json"),
    )


def find_model(name_or_path: str, base_model: str | None = None) -> ModelFiles:
    """Find a model and, where it is an adapter, its base; see `find_base`."""
    own = find_folder(name_or_path)
    return ModelFiles(own=own, base=find_base(own, base_model))


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


def check_remote_code(own: ModelFolder, base_model: str | None = None) -> tuple[str, ...]:
    """Check that code which comes with a model may run, and report for the run's log which code that is.

    Code is never run unless it is allowed for one folder or one revision of the hub. Of an adapter, it is its base's
    code, and the base must be named by `base_model`: the one in the adapter's own settings is the choice of whoever
    wrote them. Raises ConfigError where code is allowed from anywhere else, or where there is none to allow.
    """
    if own.adapter is not None and base_model is None:
        raise ConfigError(f"{_TRUST}: {own.name} is an adapter; name the base whose code may run with --base-model")
    trusted = own if own.adapter is None else find_folder(str(base_model))
    check_trusted_source(trusted.name, folder=trusted.path, option=_TRUST)
    files = own_code(trusted.path)
    if not files:
        raise ConfigError(f"{_TRUST} has no effect: {trusted.path} has no code of its own; leave it out")
    return (f"{_TRUST}: code from {trusted.path} runs with your permissions ({', '.join(files)})",)


def unused_code(files: ModelFiles) -> tuple[str, ...]:
    """Report, for the run's log, the code that comes with a model and is not run."""
    return tuple(
        f"{path}: has code of its own ({', '.join(found)}), which is not run; transformers' own is"
        for path in dict.fromkeys((files.own.path, files.base.path))
        if (found := own_code(path))
    )

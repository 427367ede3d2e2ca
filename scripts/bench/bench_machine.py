"""Header of every benchmark: the machine, the versions, and whether the machine is busy."""

from __future__ import annotations

import os
import platform
from pathlib import Path

BUSY_LOAD = 0.5
"""Load average before the benchmark above which timings are unreliable."""


def pin_threads(threads: int) -> None:
    """Set the number of threads that torch uses."""
    import torch

    torch.set_num_threads(threads)


def describe_machine(threads: int) -> str:
    """Describe the machine in one line, with a warning if it is busy."""
    import torch
    import transformers

    load = os.getloadavg()[0]
    note = f" — BUSY (load {load:.2f}): timings are doubtful" if load > BUSY_LOAD else f" (load {load:.2f})"
    return (
        f"{_cpu()}, {threads} thread(s), Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}{note}"
    )


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line for line in lines if line.startswith("flags")), "")
    has = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    return f"{name} ({', '.join(has) or 'no bf16 instructions'})"

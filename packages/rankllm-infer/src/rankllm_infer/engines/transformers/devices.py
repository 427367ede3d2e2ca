"""Where a model runs and in which dtype: what was asked for, or what suits this machine."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from rankllm_core.config import one_of
from rankllm_core.errors import RankLLMError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(device: str, *, num_gpus: int = 1) -> torch.device:
    """The device asked for, or the best one here. Raises RankLLMError when it is not there."""
    if num_gpus > 1 and torch.cuda.device_count() < num_gpus:
        raise RankLLMError(f"--num-gpus {num_gpus}: found {torch.cuda.device_count()} CUDA devices")
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise RankLLMError(f"--device {device}: expected auto, cpu, cuda, cuda:N or mps") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise RankLLMError(f"--device {device}: found {torch.cuda.device_count()} CUDA devices; use --device cpu")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise RankLLMError("--device mps: not available on this machine; use --device cpu")
    return chosen


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The dtype asked for; `auto` is bfloat16 where the hardware is fast at it, else float16 on a GPU, else float32."""
    if dtype != "auto":
        return _DTYPES[one_of(dtype, _DTYPES, where="dtype")]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if cpu_is_fast_at_bf16() else torch.float32


def cpu_is_fast_at_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in hardware (AMX or AVX512-BF16 on x86, BF16 on Arm)."""
    capabilities = torch.backends.cpu.get_cpu_capability()
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_arm_bf16_supported")
    found = [getattr(torch.cpu, name, None) for name in checks]
    return any(check() for check in found if check is not None) or capabilities == "SVE256"


def spread_over_gpus(device: torch.device, num_gpus: int) -> dict[str, object]:
    """Arguments that let accelerate spread the layers over the first `num_gpus` devices."""
    if device.type != "cuda" or num_gpus <= 1:
        return {}
    free = {index: torch.cuda.mem_get_info(index)[0] * 9 // 10 for index in range(num_gpus)}
    return {"device_map": "auto", "max_memory": free}


def cap_threads() -> None:
    """Let torch use as many threads as this process may really run at once, not as many as the machine has."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:
        allowed = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        allowed = min(allowed, max(1, int(quota) // int(period))) if quota != "max" else allowed
    except (OSError, ValueError):
        pass  # no cgroup limit to read: not Linux, or cgroup v1
    torch.set_num_threads(min(torch.get_num_threads(), allowed))

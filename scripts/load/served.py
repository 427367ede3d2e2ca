"""Server process under load, and its resources."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2


@dataclass(frozen=True)
class Served:
    """Server in a separate process."""

    url: str
    pid: int

    def rss_mib(self) -> float:
        """Return its current memory."""
        return int(Path(f"/proc/{self.pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024

    def n_files(self) -> int:
        """Return the number of open files and connections."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def metric(self, pattern: str) -> float:
        """Return the sum of the metrics whose lines match."""
        text = httpx2.get(f"{self.url}/metrics", trust_env=False).text
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(pattern, line))


@contextmanager
def serving(model: str, *more: str) -> Iterator[Served]:
    """Start a server, wait until it is ready, and shut it down gracefully at the end of the block."""
    words = [sys.executable, "-m", "rankllm_infer", "serve", "--model-path", model, "--port", "0", *more]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(words, stderr=log, text=True)
        try:
            yield Served(_address(process, log.fileno()), process.pid)
            process.terminate()
            if process.wait(600):
                raise RuntimeError(f"the server ended with status {process.returncode}")
        finally:
            process.kill()


def _address(process: subprocess.Popen[str], log: int) -> str:
    path = Path(f"/proc/self/fd/{log}")
    for _ in range(6000):
        if found := re.search(r" at (http://\S+)$", path.read_text(), re.MULTILINE):
            return found[1]
        if process.poll() is not None:
            raise RuntimeError(f"the server did not start: {path.read_text()}")
        time.sleep(0.1)
    raise RuntimeError("the server did not start in ten minutes")


@dataclass
class MemoryWatch:
    """Records memory every second while the block runs."""

    served: Served
    samples: list[float] = field(default_factory=list)

    async def __aenter__(self) -> MemoryWatch:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            self.samples.append(self.served.rss_mib())
            await asyncio.sleep(0.5)

"""A package index on loopback in a separate environment: pypiserver, which accepts any upload."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("index.txt")
START_TIMEOUT_S = 60


@dataclass(frozen=True)
class LocalIndex:
    """The URL of the index and the folder with its files."""

    url: str
    folder: Path

    def files(self) -> dict[str, str]:
        """The SHA-256 of every file, by name."""
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.folder.iterdir()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_answers(url: str, server: subprocess.Popen[bytes]) -> None:
    """Wait for the server. Raises RuntimeError if it exits or does not respond."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            direct.open(url, timeout=5).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{url}: the index did not start within {START_TIMEOUT_S} s")


@contextmanager
def serve_index(folder: Path) -> Iterator[LocalIndex]:
    """An empty index for the duration of the block. It queries no other index: an unknown name is a 404."""
    folder.mkdir()
    port = free_port()
    command = ["uv", "run", "--quiet", "--no-project", "--isolated", "--with-requirements", str(REQUIREMENTS)]
    command += ["pypi-server", "run", "--interface", "127.0.0.1", "--port", str(port)]
    command += ["--authenticate", ".", "--passwords", ".", "--disable-fallback", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        index = LocalIndex(f"http://127.0.0.1:{port}/", folder)
        wait_until_it_answers(index.url, server)
        yield index
    finally:
        server.terminate()
        server.wait(timeout=30)

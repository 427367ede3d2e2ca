"""Serve a reranker over HTTP and call it as any client of a rerank API would. Needs the extra `serve`.

    python examples/serve_and_call.py

In practice the server runs by itself (`rankllm-infer serve --model-path MODEL`), and clients written for Cohere, Jina,
vLLM or TEI call it; here a client of ten lines does, with the standard library alone.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

DOCUMENTS = [
    "Cats sleep most of the day.",
    "Air scatters short wavelengths of sunlight more than long ones, so the sky looks blue.",
]


@contextmanager
def server(model: str) -> Iterator[str]:
    """A server on a free port of this machine while the block runs. Yields its address."""
    command = [sys.executable, "-m", "rankllm_infer", "serve", "--model-path", model, "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        said = ""
        while not (found := re.search(r" at (http://\S+)\n", said)):
            line = process.stderr.readline() if process.stderr else ""
            if not line:
                raise SystemExit(f"the server did not start:\n{said}")
            said += line
        yield found[1]
    finally:
        process.terminate()
        process.communicate()


def rerank(address: str, query: str, documents: list[str]) -> list[dict[str, float]]:
    """The results of one request: each has the `index` of a document and its `relevance_score`, best first."""
    body = json.dumps({"query": query, "documents": documents, "top_n": 2}).encode()
    request = Request(f"{address}/v2/rerank", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=120) as answer:
        results: list[dict[str, float]] = json.load(answer)["results"]
    return results


def main() -> None:
    with server("smollm2-pointwise") as address:
        for found in rerank(address, "why is the sky blue", DOCUMENTS):
            print(f"{found['relevance_score']:.3f}  {DOCUMENTS[int(found['index'])]}")


if __name__ == "__main__":
    main()

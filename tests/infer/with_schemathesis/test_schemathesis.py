"""Schemathesis against a running server: what the description allows is accepted, what it forbids is refused, and every
response is one that it describes. All default checks, in all phases, the stateful one included."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from chat_server import logprobs_reply
from client_server import KEY
from serving_process import Log, server
from shared_files import REPOSITORY

pytest.importorskip("schemathesis", reason="needs Schemathesis: scripts/test-openapi")

SEEDS = os.environ.get("SEEDS", "1").split(",")
EXAMPLES = os.environ.get("EXAMPLES", "30")
HOOKS = {"SCHEMATHESIS_HOOKS": "equal_lengths", "PYTHONPATH": str(REPOSITORY / "scripts" / "openapi")}
LISTWISE = ("--window-size", 20)
POINTWISE = ("--method", "pointwise")


def yes_or_no(received):
    """Log-probabilities of a model that finds every passage slightly relevant."""
    if received.path.endswith("/models"):
        return {"object": "list", "data": [{"id": "oracle"}]}
    return logprobs_reply({"yes": -0.5, "no": -1.0})


@pytest.fixture(params=["open", "closed"])
def keys(request, tmp_path):
    """Server options without and with a key."""
    if request.param == "open":
        return ()
    (tmp_path / "keys").write_text(KEY)
    return ("--api-key-file", tmp_path / "keys", "--protect", "metrics")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("options", [LISTWISE, POINTWISE], ids=["listwise", "pointwise"])
def test_nothing_is_found(keys, options, seed, tmp_path):
    """By the default checks; and the log contains no bug."""
    more = {"respond": yes_or_no} if options == POINTWISE else {}
    with server(*options, *keys, **more) as (process, url, _):
        log = Log(process)
        words = [Path(sys.executable).parent / "schemathesis", "run", f"{url}/openapi.json", "--no-color"]
        words += ["--seed", seed, "--max-examples", EXAMPLES, "--generation-database", "none"]
        words += ["--header", f"Authorization: Bearer {KEY}"] if keys else []
        done = subprocess.run(
            list(map(str, words)),
            cwd=tmp_path,
            env=os.environ | {"NO_PROXY": "127.0.0.1"} | HOOKS,
            capture_output=True,
            text=True,
        )
        lines, text = log.lines, log.text
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    assert "Stateful (not applicable)" not in done.stdout
    assert [line for line in lines if line["level"] == "error"] == []
    assert KEY not in text

"""`rankllm-infer` in a process of its own, to be sent signals. Needs the standard library only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

PYTHON = os.environ.get("RANKLLM_PYTHON", sys.executable)
"""The interpreter that has rankllm. Environments of other packages do not: their scripts name this one."""


def started(arguments):
    """The program in a process of its own; killed at the end."""
    return started_python("-m", "rankllm_infer", *map(str, arguments))


@contextmanager
def started_python(*words):
    """Python in a process of its own; killed at the end."""
    process = subprocess.Popen(
        [PYTHON, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"NO_PROXY": "127.0.0.1"},
        # Where the tests run in the background, Ctrl-C is ignored, and processes inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()

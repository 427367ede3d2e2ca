"""`rankllm-infer` in a process of its own, to be sent signals. Needs the standard library only."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager

PYTHON = os.environ.get("RANKLLM_PYTHON", sys.executable)
"""The interpreter that has rankllm. Environments of other packages do not: their scripts name this one."""

INTERRUPTIBLE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Starts Python anew, with Ctrl-C as in a terminal: tests in the background ignore it, and processes inherit that.

Not `preexec_fn`: it runs Python between fork and exec, where a test with threads may wait for their locks for ever.
"""


def started(arguments):
    """The program in a process of its own; killed at the end."""
    return started_python("-m", "rankllm_infer", *map(str, arguments))


@contextmanager
def started_python(*words):
    """Python in a process of its own; killed at the end."""
    process = subprocess.Popen(
        [PYTHON, "-c", INTERRUPTIBLE, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"NO_PROXY": "127.0.0.1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()

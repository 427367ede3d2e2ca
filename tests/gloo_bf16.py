"""A launcher for processes without a GPU: trains in bf16 under DeepSpeed, one command line after the other.

    torchrun --nproc-per-node 2 tests/gloo_bf16.py COMMANDS.json

COMMANDS.json: a list of argument lists of `rankllm-train`. One start serves many short runs: loading torch,
transformers and DeepSpeed takes longer than a few steps of a tiny model.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

from transformers import training_args

from rankllm_train.cli import cli
from rankllm_train.training import trainer_arguments

# bf16 without a GPU is refused by transformers, which does not know that DeepSpeed has a CPU accelerator of its own,
# and therefore by our check too. Both ask for a device and nothing else; all that follows is what a GPU would run.
training_args.is_torch_bf16_gpu_available = lambda: True
trainer_arguments.check_launch = lambda **launch: None


def main(path):
    """Run every command of a file; the first error ends the process."""
    for command in json.loads(Path(path).read_text(encoding="utf-8")):
        cli.main(command, standalone_mode=False)
        gc.collect()  # a run's TrainingArguments decide whether ZeRO-3 is on while the next model is loaded


if __name__ == "__main__":
    main(sys.argv[1])

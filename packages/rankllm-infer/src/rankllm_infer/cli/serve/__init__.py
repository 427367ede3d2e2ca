"""`rankllm-infer serve`."""

from rankllm_infer.cli.serve.command import command as command

"""`rankllm-infer rerank`."""

from rankllm_infer.cli.rerank.command import command as command

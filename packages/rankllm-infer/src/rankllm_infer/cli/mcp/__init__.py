"""`rankllm-infer mcp`."""

from rankllm_infer.cli.mcp.command import command as command

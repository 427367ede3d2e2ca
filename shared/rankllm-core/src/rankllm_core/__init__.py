"""Shared by rankllm-train and rankllm-infer: prompt templates, data formats, TREC I/O and model cards. Torch-free
outside nn/."""

__version__ = "0.1.0"

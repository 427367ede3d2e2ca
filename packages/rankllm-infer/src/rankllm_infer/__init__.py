"""Rerank with large language models: listwise (RankZephyr, FIRST) and pointwise (RankLLaMA, yes/no)."""

__version__ = "0.1.0"

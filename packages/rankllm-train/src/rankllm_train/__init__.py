"""Fine-tune LLM rerankers: RankZephyr, FIRST and RankLLaMA."""

__version__ = "0.1.0"

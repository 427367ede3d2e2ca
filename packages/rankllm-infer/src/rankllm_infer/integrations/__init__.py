"""Rerankers as components of LangChain, LlamaIndex, Haystack and PyTerrier; each needs the extra of its name."""

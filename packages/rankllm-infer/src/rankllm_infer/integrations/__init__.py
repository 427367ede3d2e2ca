"""Rerankers as components of LangChain, LlamaIndex, Haystack and PyTerrier; each requires the extra of the same
name."""

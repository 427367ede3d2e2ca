"""Reranking over HTTP: dialects of rerank APIs, the application, and the server's life cycle from loading to
draining."""

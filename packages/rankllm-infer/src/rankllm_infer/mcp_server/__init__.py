"""A Model Context Protocol server: a reranker, and a collection to search, as tools of a language model's client."""

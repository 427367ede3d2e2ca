"""Locating and checking a model's files: folders, the hub, bundled rerankers."""

"""Where a model's files are: folders, the hub, bundled rerankers."""

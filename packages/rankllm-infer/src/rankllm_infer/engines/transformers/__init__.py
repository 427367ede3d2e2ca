"""Runs a model in this process with transformers."""

"""Runs a model with vLLM."""

"""Recipes: the full configuration of a training run."""

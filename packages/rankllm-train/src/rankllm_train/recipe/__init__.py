"""Recipes: what a training run is asked to do."""

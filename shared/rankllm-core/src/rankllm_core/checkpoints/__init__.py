"""Checks of a model folder before anything is loaded."""

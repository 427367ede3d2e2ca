"""Demonstration on a bundled collection."""

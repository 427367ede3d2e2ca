"""Measures, significance tests and comparisons of runs."""

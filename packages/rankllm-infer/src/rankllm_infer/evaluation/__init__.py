"""Measures, significance and comparisons of runs."""

"""Parsing of model answers into permutations."""

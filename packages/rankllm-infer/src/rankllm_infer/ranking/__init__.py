"""Ranking methods and strategies: no I/O, no engine."""

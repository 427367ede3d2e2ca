"""Ranking methods that can be trained: one module each, found by the name that a recipe gives."""

"""Conversion between file formats, and joining runs with texts."""

"""Conversion between file formats."""

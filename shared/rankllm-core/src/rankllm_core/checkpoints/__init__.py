"""Validation of model folders before anything is loaded."""

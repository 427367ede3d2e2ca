"""Requests, results and collections on disk."""

"""Asks an OpenAI-compatible server."""

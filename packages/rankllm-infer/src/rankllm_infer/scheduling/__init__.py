"""Runs the flows of many requests over one engine, for every entry point alike."""

"""Scheduling: runs the flows of many requests over one engine, for all entry points."""

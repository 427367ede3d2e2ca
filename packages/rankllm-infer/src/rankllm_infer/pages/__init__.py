"""Shared parts of this package's HTML pages: their style, and how styles and scripts are inlined."""

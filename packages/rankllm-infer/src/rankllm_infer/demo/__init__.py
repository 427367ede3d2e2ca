"""The demonstration on a bundled collection."""

"""A run of many queries: journal, fingerprint, outputs."""

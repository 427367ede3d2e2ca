"""Runs over many queries: journal, fingerprint, outputs, cost estimates."""

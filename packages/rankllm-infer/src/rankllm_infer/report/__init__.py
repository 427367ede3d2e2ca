"""Self-contained HTML report about a ranking: what changed against a baseline, query by query, and why."""

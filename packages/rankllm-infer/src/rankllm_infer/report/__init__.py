"""One self-contained HTML page about a ranking: what changed against a baseline, query by query, and why."""

"""Training records: reading and validation. The package `encoding` turns them into batches."""

"""Training records: read and checked. How they become batches is in `encoding`."""

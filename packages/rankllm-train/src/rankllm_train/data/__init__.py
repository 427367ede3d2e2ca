"""Training records: read, checked, sampled, tokenized."""

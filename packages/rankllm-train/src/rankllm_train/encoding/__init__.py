"""From training records to the ids of a batch: prompts encoded as inference encodes them, checked, put together."""

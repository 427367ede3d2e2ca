"""From training records to batches of token ids: prompts encoded as at inference, checked and padded."""

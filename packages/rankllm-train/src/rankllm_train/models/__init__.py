"""Loading models and adapters for training."""

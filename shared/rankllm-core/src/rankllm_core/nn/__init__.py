"""Code that both programs share and that needs torch and transformers. No other core module imports it."""

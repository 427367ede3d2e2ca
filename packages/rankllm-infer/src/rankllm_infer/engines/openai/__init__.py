"""Engine for OpenAI-compatible servers."""

"""Engine that runs models with vLLM."""

"""HTTP request and response formats of Cohere, Jina, vLLM and text-embeddings-inference. Pure functions."""

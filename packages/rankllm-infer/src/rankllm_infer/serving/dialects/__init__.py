"""What is said over HTTP, in the words of Cohere, Jina, vLLM and text-embeddings-inference. Pure functions."""

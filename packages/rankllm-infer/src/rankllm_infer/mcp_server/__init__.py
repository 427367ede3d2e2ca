"""Model Context Protocol server: a reranker, optionally with a collection to search, as tools for MCP clients."""

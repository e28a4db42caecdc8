"""Features of items: keywords, categories, attributes and embeddings."""

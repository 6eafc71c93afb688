"""Wire formats: what providers and clients speak."""

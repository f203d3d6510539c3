"""Real networks: record what they do with mixed inputs, measure it, and hold it against the theory."""

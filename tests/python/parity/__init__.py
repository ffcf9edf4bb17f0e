"""Models beside those of transformers."""

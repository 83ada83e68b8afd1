"""A multi-layer objective on layer-specific probe directions (a reconstruction of arXiv:2605.26454)."""

"""Cosine-RMU: a cosine-based, meta-learned variant of RMU (a reconstruction of arXiv:2605.26454)."""

"""Renderers: each writes sections in one format and knows nothing of what they are about."""

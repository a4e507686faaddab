"""Data sets, each a source of images in tracks, cached once and shared by all processes."""

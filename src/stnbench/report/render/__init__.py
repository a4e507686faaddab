"""Renderers, each of which writes sections in one format, whatever their content."""

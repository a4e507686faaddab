"""Families of transformations of the plane."""

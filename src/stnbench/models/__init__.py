"""Classifiers with spatial transformers, their preprocessing, and their cost."""

"""Preprocessing, classifiers with spatial transformers, and what they cost."""

"""Floor 3: preprocessing, classifiers with spatial transformers, and what they cost."""

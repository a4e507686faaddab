"""YAML to specifications. Hydra composes here and ends here."""

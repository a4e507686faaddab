"""Floor 8: YAML to specifications. Hydra composes here and ends here."""

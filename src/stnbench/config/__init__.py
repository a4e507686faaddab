"""Conversion of YAML to specifications; the only package that uses Hydra."""

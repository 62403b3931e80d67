"""Experiment configs; each module has get_config(), `base` defines every field."""

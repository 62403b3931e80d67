"""A run's folder: its lock, its config, the identity of the run, and its records."""

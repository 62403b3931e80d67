"""The folder of a run: its lock, its config, whose it is, and the records in it."""

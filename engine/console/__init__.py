"""What a run prints: startup, model summary, tables of error rates."""

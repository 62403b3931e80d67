"""Console output: startup, model summary, progress of training, tables of error rates."""

"""SavedModels of TensorFlow Hub as acoustic models."""

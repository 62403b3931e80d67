"""Tensor operations that TensorFlow lacks or that run faster here: fused, grouped, or with keyed random numbers."""

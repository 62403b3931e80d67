"""Attention for NVIDIA GPUs that never writes a tensor of all pairs of frames."""

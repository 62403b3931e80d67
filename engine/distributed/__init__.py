"""Devices, strategies, clusters and preemption."""

"""Acoustic models whose backbone is a SavedModel from TensorFlow Hub."""

"""Conversion of the configs, files and tensor names of Hugging Face models."""

"""Configs, files and tensor names of Hugging Face models."""

"""Beam search over characters and over words with a language model."""

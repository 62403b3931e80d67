"""Transcripts to tokens and back: normalization, vocabularies, labels."""

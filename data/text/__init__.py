"""Normalization of transcripts, vocabularies and label statistics."""

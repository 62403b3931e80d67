"""Readers of manifests, tables and LibriSpeech trees, and sources of their utterances."""

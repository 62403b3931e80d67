"""Corpora, audio, transcripts, shards and batches; they know nothing of models or training."""

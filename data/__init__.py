"""Utterances in, batches out: manifests, audio, transcripts, shards and batch plans."""

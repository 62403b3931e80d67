"""Batch plans, length buckets and input pipelines that turn utterances into padded batches."""

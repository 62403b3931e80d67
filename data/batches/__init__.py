"""Order, buckets and pipelines: utterances to padded batches."""

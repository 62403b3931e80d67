"""The wav2vec 2.0 network: feature encoder, transformer, masking, configs and saved folders."""

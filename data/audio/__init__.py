"""Decoding, checking, resampling and streaming of recordings."""

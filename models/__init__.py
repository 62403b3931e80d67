"""Acoustic models, the CTC loss and decoders; they know nothing of data sets or training."""

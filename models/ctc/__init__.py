"""CTC loss, greedy decoding and forced alignment."""

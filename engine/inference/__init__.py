"""Transcription with a trained model: windows, decoding, words with times."""

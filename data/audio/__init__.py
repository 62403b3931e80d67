"""Recordings to waveforms: decoding, resampling, streaming."""

"""Alters waveforms on the host as a microphone, a room, noise or a telephone would, keyed by (seed, epoch, row)."""

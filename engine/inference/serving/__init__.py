"""Transcription over HTTP."""

"""Lists recordings without transcripts, for pseudo-labels."""

"""The embedded speech synthesizer and what it says."""

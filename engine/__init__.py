"""Training and evaluation loops; data and models come in as arguments."""

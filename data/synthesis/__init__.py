"""Speech synthesis for the synthetic corpus of the quickstart."""

"""Reads files that came from outside; the one package that data, models and engine may all import."""

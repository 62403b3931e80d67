"""Writes the error report of an evaluation and the comparison of runs as HTML pages."""

"""Conversion of the checkpoints of fairseq and fairseq2: their names, configs and dictionaries."""

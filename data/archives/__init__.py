"""Reads recordings that lie inside another file: rows of Parquet and Arrow files, members of tars."""

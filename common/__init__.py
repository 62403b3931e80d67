"""Storage, workdir layout and guarded readers; the one package that data, models and engine may all import."""

"""Errors, atomic writes, folder locks and HTML pages that all packages of `data` use."""

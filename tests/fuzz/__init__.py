"""Seeded mutations of everything that comes from outside, and what its readers make of them."""

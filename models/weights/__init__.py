"""Weights by name: downloaded, unpacked and cached, read without running them."""

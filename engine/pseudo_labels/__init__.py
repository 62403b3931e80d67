"""Makes, filters and records pseudo-labels."""

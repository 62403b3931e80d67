"""One runnable module a question; docs/results keeps what they said."""

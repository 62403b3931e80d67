"""Actions after each training loop and each evaluation: writers, guards, early stopping."""

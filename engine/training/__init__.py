"""The training loop: update step, optimizer, schedules, averaged weights."""

"""The protocol itself: no I/O, no clock, no randomness."""

"""Figures of speed, taken side by side with their limits. `make bench`."""

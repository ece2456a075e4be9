"""Noise XK: who is at the other end, and that nobody else listens."""

"""Transports by hand: list, add, remove."""

"""Keeping in step: pulling, comparing, watching, and whom to do it with."""

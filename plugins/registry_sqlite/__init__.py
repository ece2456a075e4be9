"""Listings of discovery servers in one SQLite file."""

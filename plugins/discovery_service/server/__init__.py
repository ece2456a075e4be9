"""The server: a list of services."""

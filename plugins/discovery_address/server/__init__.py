"""The server: an address resolver."""

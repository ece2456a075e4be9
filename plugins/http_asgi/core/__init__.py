"""The rules of the server that need no socket: rates, tags, prefixes, packing."""

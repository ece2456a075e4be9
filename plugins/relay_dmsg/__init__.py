"""DMSG: relays, and transports through them."""

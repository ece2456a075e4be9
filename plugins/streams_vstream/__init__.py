"""Streams over transports: one yamux session per packet type."""

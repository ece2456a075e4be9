"""SUDPH: transports over UDP that get through NATs."""

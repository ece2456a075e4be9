"""What no plugin may bypass: transports, gate, publisher, RPC registry, access."""

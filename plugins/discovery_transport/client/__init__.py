"""The client role: keeps a node's own transports registered, and reads others'."""

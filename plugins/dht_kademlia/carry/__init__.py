"""Items, leases and blocks between this node and one other."""

"""Who may call this node: hypervisor keys and the whitelist."""

"""Who may call: keys listed as hypervisors and on the whitelist."""

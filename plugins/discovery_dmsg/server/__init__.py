"""The service: routes, rules for entries, and the ways to the DHT and back."""

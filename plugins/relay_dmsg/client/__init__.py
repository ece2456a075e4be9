"""A node that is reached through relays, and reaches others through them."""

"""Items in Redis: the store that several nodes and services share (and the mirror into it)."""

"""Items in memory, for as long as the node lives."""

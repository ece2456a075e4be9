"""Items in one SQLite file, durable before they are acknowledged."""

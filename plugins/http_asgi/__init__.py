"""HTTP: one server for the routes of all plugins, and one pooled client."""

"""The `skynode` command line."""

"""Contract suites: inherit one, give it a fixture, and get every test the built-in parts pass."""

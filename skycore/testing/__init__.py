"""PUBLIC: what plugin authors test with."""

"""Direct TCP links."""

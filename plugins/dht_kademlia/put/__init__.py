"""Bringing items to the nodes that keep them, and seeing to it that they stay there."""

"""What the client decides, without doing it."""

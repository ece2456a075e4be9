"""What a node says of itself: Overview, Health, Summary."""

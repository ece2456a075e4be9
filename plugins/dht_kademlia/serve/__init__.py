"""What other nodes are answered."""

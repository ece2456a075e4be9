"""What both sides of a relay conclude from bytes and times, without any I/O."""

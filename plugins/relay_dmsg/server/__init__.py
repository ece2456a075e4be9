"""The relay: sessions, forwarded dials, spliced streams."""

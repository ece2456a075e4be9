"""The node's side: its own entry kept registered, a source of entries, `dmsg servers`."""

"""The real clock, entropy, network, files and workers."""

"""The control socket: how the command line of this machine reaches the node."""

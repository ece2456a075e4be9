"""RPC to and from other nodes, over transports."""

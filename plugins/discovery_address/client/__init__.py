"""The client: tells resolvers and the DHT where this node is, and asks for others."""

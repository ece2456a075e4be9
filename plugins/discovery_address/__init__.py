"""Address discovery: where a key can be dialled: by a resolver over HTTP, and by the DHT."""

"""Service discovery: who offers which service: by a server over HTTP, and by the DHT."""

"""DMSG discovery: who is reachable over which DMSG servers, as a client and as a service."""

"""Transport discovery over HTTP: who has which transports; a client role and a server role."""

"""The commands `skynode visor dht`."""

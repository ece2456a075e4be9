"""Publish many records in one call, with a DHT or without."""

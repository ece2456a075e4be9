"""Metrics for Prometheus: what the node's parts count, under /metrics."""

"""Contracts: what parts promise each other. Protocols and their values, no behaviour."""

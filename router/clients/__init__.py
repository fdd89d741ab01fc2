"""Clients: whose key it is, what it may name, how often it may ask, what it has spent today."""

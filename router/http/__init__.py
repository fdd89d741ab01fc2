"""The face of the router: what a client sends and receives."""

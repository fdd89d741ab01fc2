"""The models behind the router: calling them, reading their streams, counting their tokens."""

"""The gateway: reads a request, decides which model answers it, forwards it, accounts for it."""

__version__ = "0.1.0"

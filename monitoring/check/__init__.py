"""Prove that every panel shows something: the real stack, real traffic, and a real Prometheus that is asked."""

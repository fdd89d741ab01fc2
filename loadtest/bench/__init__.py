"""The router side by side with its peers, and its cost as work grows; see docs/performance.md."""

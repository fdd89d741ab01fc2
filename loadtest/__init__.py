"""Load, and everything needed to try the router without a GPU or a paid LLM."""

"""Which model answers: from a prompt to a decision, through the classifier."""

"""What the classifier does on this machine's GPU: the right numbers, how fast, and what they cost."""

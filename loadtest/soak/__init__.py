"""A long run of mixed traffic through the whole stack, with a fault every half minute."""

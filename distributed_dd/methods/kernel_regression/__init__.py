"""Kernel regression on infinitely wide networks: KIP, and what its kernel says of a set."""

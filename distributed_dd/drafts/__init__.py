"""A first configuration for one's own data: what `distributed-dd init` writes."""

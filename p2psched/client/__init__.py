"""Layer 5, the client: what programs use to talk to a cluster."""

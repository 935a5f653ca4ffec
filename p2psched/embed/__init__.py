"""Layer 6, a peer inside another program: a thread of its own, and nothing else of its host."""

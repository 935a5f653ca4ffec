"""Layer 2, ports: what a loop may ask of the world. Protocols only; adapters live in layer 3."""

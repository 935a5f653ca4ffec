"""Layer 1, decisions: pure machines that take events and return effects. They never wait, never
read a clock or a disk, never draw randomness of their own."""
